//! Where the credentials of a registry are kept: with its helper, with the helper of all, or in the file.

use std::path::PathBuf;

use super::file::{self, ConfigFile};
use super::helper::Helper;
use super::{Credentials, hostname};

/// Credentials as the user's configuration says that they are kept.
pub(crate) struct Store {
    path: PathBuf,
    file: ConfigFile,
}

/// Where credentials went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    /// To a helper.
    Helper,
    /// Into this file, for everybody to read who may read it.
    File(PathBuf),
}

impl Store {
    /// Reads the user's configuration.
    ///
    /// # Errors
    /// The file cannot be read; in Docker's words.
    pub(crate) fn open() -> Result<Self, String> {
        let path = file::path()?;
        let file = ConfigFile::load(&path)?;
        Ok(Self { path, file })
    }

    /// The credentials of a registry.
    ///
    /// # Errors
    /// What the helper says.
    pub(crate) fn get(&self, server: &str) -> Result<Option<Credentials>, String> {
        match self.file.helper(server) {
            Some(helper) => Helper(helper).get(server),
            None => Ok(self.file.get(server)),
        }
    }

    /// Keeps credentials.
    ///
    /// # Errors
    /// What the helper says, or why the file cannot be written.
    pub(crate) fn put(&mut self, server: &str, credentials: &Credentials) -> Result<Stored, String> {
        let Some(helper) = self.file.helper(server) else {
            self.file.put(server, Some(credentials));
            self.file.save(&self.path)?;
            return Ok(Stored::File(self.path.clone()));
        };
        Helper(helper).store(server, credentials)?;
        self.file.put(server, None);
        self.file.save(&self.path)?;
        Ok(Stored::Helper)
    }

    /// Forgets the credentials of a registry under all names that clients have given it.
    ///
    /// # Errors
    /// For each name what went wrong, if nothing worked under any of them.
    pub(crate) fn erase(&mut self, server: &str) -> Result<(), Vec<(String, String)>> {
        let host = hostname(server);
        let mut names = vec![server.to_owned()];
        if server != super::HUB {
            names.extend([format!("http://{host}"), format!("https://{host}")]);
        }
        let mut wrong = Vec::new();
        let mut changed = false;
        for name in &names {
            let helper = self.file.helper(name).map(str::to_owned);
            if let Some(Err(why)) = helper.map(|helper| Helper(&helper).erase(name)) {
                wrong.push((name.clone(), why));
            }
            changed |= self.file.remove(name);
        }
        if changed && let Err(why) = self.file.save(&self.path) {
            return Err(vec![(server.to_owned(), why)]);
        }
        if wrong.len() == names.len() { Err(wrong) } else { Ok(()) }
    }
}
