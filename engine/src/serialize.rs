//! Settings as text in whatever a program keeps its own settings in: the forms of `Display` and
//! `FromStr`.
use crate::{Durability, KeyspaceOptions};
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

macro_rules! as_text {
    ($($settings:ty),*) => {
        $(impl Serialize for $settings {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $settings {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$settings, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        })*
    };
}

as_text!(Durability, KeyspaceOptions);
