//! The indexes of a keyspace.
use super::Keyspace;
use crate::index::options::IndexOptions;
use crate::index::{Index, build};
use sapwood_base::{Error, ErrorKind, Result};

impl Keyspace {
    /// The secondary index `name`, created with `options` if there is none. Returns when it is
    /// complete: on a keyspace with rows it is built on the caller's thread, while other threads
    /// continue to write; they can poll [`Index::progress`].
    ///
    /// Call it at every open: the database stores the definition of an index, but the code of
    /// its extractor is the application's, and writes to the keyspace are refused until it is
    /// attached again. (Built-in extractors need no call.) If the definition or the version of the
    /// code has changed, or the build was interrupted, the index is rebuilt.
    ///
    /// Errors: `InvalidArgument` for an invalid definition, or if an index key of a row is too
    /// long; `UniqueViolation` if the index is unique and the rows are not; and those of writes.
    /// Then there is no index of this name.
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
    /// let by_name = users.create_index("by_name", IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.get("Bo").next().unwrap()?.primary_key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "secondary index")]
    pub fn create_index(&self, name: &str, options: IndexOptions) -> Result<Index> {
        self.state().check_alive()?;
        let state = build::create(self.core(), self.state(), name, &options)?;
        Ok(Index::new(self.clone(), state))
    }

    /// The secondary index `name`, for reading. It need not have its extractor yet.
    ///
    /// Errors: `NotFound` if there is none.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(users.index("by_name")?.count_all()?, 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn index(&self, name: &str) -> Result<Index> {
        self.core().check_open()?;
        self.state().check_alive()?;
        let state = self.core().manifest_state(|state| {
            state.index_by_name(self.state().id, name).map(|index| index.state.clone())
        });
        // Again, since a close in between takes the state away.
        self.core().check_open()?;
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no index {name:?}"));
        Ok(Index::new(self.clone(), state.ok_or_else(missing)?))
    }

    /// The names of the indexes, sorted.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(users.list_indexes()?, ["by_name"]);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn list_indexes(&self) -> Result<Vec<String>> {
        self.core().check_open()?;
        self.state().check_alive()?;
        let mut names: Vec<String> = self.core().manifest_state(|state| {
            state.indexes_of(self.state().id).map(|index| index.state.definition.name.clone()).collect()
        });
        self.core().check_open()?;
        names.sort();
        Ok(names)
    }

    /// Drops an index with all its entries, durably. Its handles return errors from then on.
    ///
    /// Errors: `NotFound` if there is none, and those of writes.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// users.drop_index("by_name")?;
    /// assert!(users.index("by_name").is_err());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn drop_index(&self, name: &str) -> Result<()> {
        self.state().check_alive()?;
        let _call = self.core().enter(false)?;
        self.core().drop_index(self.state(), name)
    }
}
