//! The versions of the packages that this program was built with.

/// The version of a package according to the lock file.
pub fn of(package: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    let name = format!("name = \"{package}\"");
    let version = lock
        .lines()
        .skip_while(|line| *line != name)
        .find_map(|line| line.strip_prefix("version = "))
        .map(|version| version.trim_matches('"'));
    version.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn packages_have_versions() {
        assert!(super::of("fjall").starts_with("3."));
        assert_eq!(super::of("no such package"), "unknown");
    }
}
