//! Options of the application for creating an index, or for attaching its code to an existing one.
use super::extractor::{BuiltinExtractor, Emit, Extractor};
use sapwood_base::format::index_definition::{Builtin, ExtractorSpec, IndexDefinition, Maintenance};
use sapwood_base::{KeyspaceId, Result};
use std::fmt;
use std::sync::Arc;

/// An index: the source of its keys, and its maintenance.
///
/// Passed to [`Keyspace::create_index`](crate::Keyspace::create_index), also at every later
/// open: the database stores the definition of the index, but not its code.
#[derive(Clone)]
pub struct IndexOptions {
    source: Source,
    unique: bool,
    maintenance: Maintenance,
    build_bytes_per_second: Option<u64>,
}

#[derive(Clone)]
enum Source {
    Custom { extractor: Arc<dyn Extractor>, version: u64 },
    Builtin(Builtin),
}

impl fmt::Debug for IndexOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("IndexOptions");
        match &self.source {
            Source::Custom { version, .. } => fields.field("version", version),
            Source::Builtin(builtin) => fields.field("builtin", builtin),
        };
        fields
            .field("unique", &self.unique)
            .field("maintenance", &self.maintenance)
            .field("build_bytes_per_second", &self.build_bytes_per_second)
            .finish_non_exhaustive()
    }
}

impl IndexOptions {
    /// Keys come from code, version 1 of it: a function of key and value that emits index keys. It
    /// is called again for the same row, on other threads and in later sessions, and has to emit
    /// the same then.
    ///
    /// ```
    /// use sapwood::IndexOptions;
    ///
    /// let by_first_byte = IndexOptions::new(|_key, value, emit| {
    ///     if let Some(first) = value.first() {
    ///         emit.key([*first]);
    ///     }
    /// });
    /// # let _ = by_first_byte;
    /// ```
    pub fn new<F: Fn(&[u8], &[u8], &mut Emit<'_>) + Send + Sync + 'static>(code: F) -> IndexOptions {
        IndexOptions::from_extractor(code)
    }

    /// [`IndexOptions::new`] for a type of your own that implements [`Extractor`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// use sapwood::{Emit, Extractor, IndexOptions};
    ///
    /// /// The first so many bytes of the value.
    /// struct First(usize);
    ///
    /// impl Extractor for First {
    ///     fn extract(&self, _key: &[u8], value: &[u8], emit: &mut Emit<'_>) {
    ///         emit.key(&value[..value.len().min(self.0)]);
    ///     }
    /// }
    ///
    /// let by_initial = users.create_index("by_initial", IndexOptions::from_extractor(First(1)))?;
    /// assert_eq!(by_initial.get("B").count(), 1);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn from_extractor(extractor: impl Extractor) -> IndexOptions {
        IndexOptions::from(Source::Custom { extractor: Arc::new(extractor), version: 1 })
    }

    /// Keys are a part of key or value. Such an index needs no code, and every program maintains
    /// it.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// use sapwood::{Builtin, Field, IndexOptions, KeyKind};
    ///
    /// let city = Builtin::new(Field::value().pointer("/address/city"), KeyKind::Bytes);
    /// let by_city = users.create_index("by_city", IndexOptions::builtin(city))?;
    /// users.put("u1", r#"{"name": "Ann", "address": {"city": "Oslo"}}"#)?;
    /// assert_eq!(by_city.get("Oslo").count(), 1);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn builtin(builtin: Builtin) -> IndexOptions {
        IndexOptions::from(Source::Builtin(builtin))
    }

    fn from(source: Source) -> IndexOptions {
        IndexOptions {
            source,
            unique: false,
            maintenance: Maintenance::default(),
            build_bytes_per_second: None,
        }
    }

    /// The version of the code. If the index was built with another version, it is rebuilt. No
    /// effect on a built-in extractor, which is compared as a whole.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// use sapwood::IndexOptions;
    ///
    /// let options = IndexOptions::new(|_key, value, emit| emit.key(value.to_ascii_lowercase())).version(2);
    /// assert_eq!(users.create_index("by_name", options)?.get("ann").count(), 1);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn version(mut self, number: u64) -> IndexOptions {
        if let Source::Custom { version, .. } = &mut self.source {
            *version = number;
        }
        self
    }

    /// Whether two rows may not have the same index key. A write that would violate this is refused
    /// with [`ErrorKind::UniqueViolation`](crate::ErrorKind::UniqueViolation). Each write to such
    /// an index reads it first, and is logged also with
    /// [`Durability::None`](crate::Durability::None).
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// use sapwood::{ErrorKind, IndexOptions};
    ///
    /// users.create_index("by_name", IndexOptions::new(|_key, value, emit| emit.key(value)).unique(true))?;
    /// assert_eq!(users.put("u9", "Ann").unwrap_err().kind(), ErrorKind::UniqueViolation);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn unique(mut self, unique: bool) -> IndexOptions {
        self.unique = unique;
        self
    }

    /// How the index follows changes of rows; [`Maintenance::Deferred`] if not set.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// use sapwood::{IndexOptions, Maintenance};
    ///
    /// let options = IndexOptions::new(|_key, value, emit| emit.key(value)).maintenance(Maintenance::Strict);
    /// users.create_index("by_name", options)?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn maintenance(mut self, maintenance: Maintenance) -> IndexOptions {
        self.maintenance = maintenance;
        self
    }

    /// Bytes of rows per second that an online build reads at most; no limit if not set.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// use sapwood::IndexOptions;
    ///
    /// let options = IndexOptions::new(|_key, value, emit| emit.key(value)).build_bytes_per_second(50 << 20);
    /// users.create_index("by_name", options)?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn build_bytes_per_second(mut self, bytes: u64) -> IndexOptions {
        self.build_bytes_per_second = Some(bytes.max(1));
        self
    }

    pub(crate) fn build_limit(&self) -> Option<u64> {
        self.build_bytes_per_second
    }

    /// The definition for the MANIFEST.
    pub(crate) fn definition(&self, name: &str, keyspace: KeyspaceId) -> Result<IndexDefinition> {
        let extractor = match &self.source {
            Source::Custom { version, .. } => ExtractorSpec::Custom { version: *version },
            Source::Builtin(builtin) => ExtractorSpec::Builtin(builtin.clone()),
        };
        let definition = IndexDefinition::new(name, keyspace, extractor, self.unique, self.maintenance);
        definition.validate()?;
        Ok(definition)
    }

    /// The code.
    pub(crate) fn extractor(&self) -> Result<Arc<dyn Extractor>> {
        match &self.source {
            Source::Custom { extractor, .. } => Ok(extractor.clone()),
            Source::Builtin(builtin) => Ok(Arc::new(BuiltinExtractor::new(builtin.clone())?)),
        }
    }
}
