//! All containers, and finding one by what a person typed.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use creel_types::ContainerId;

use super::container::Container;
use crate::error::{Error, Result};

/// All containers by id.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    containers: RwLock<BTreeMap<String, Arc<Container>>>,
    /// Names in use or being taken, with whose they are.
    names: std::sync::Mutex<BTreeMap<String, ContainerId>>,
}

/// A name that is taken for a container; let go again unless it is kept.
#[derive(Debug)]
pub(crate) struct NameGuard<'a> {
    registry: &'a Registry,
    name: String,
    kept: bool,
}

impl NameGuard<'_> {
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NameGuard<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.registry.release_name(&self.name);
        }
    }
}

impl Registry {
    pub(crate) fn insert(&self, container: Arc<Container>) {
        let name = container.name();
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name, container.id.clone());
        self.containers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(container.id.to_string(), container);
    }

    pub(crate) fn remove(&self, container: &Container) {
        self.containers.write().unwrap_or_else(PoisonError::into_inner).remove(container.id.as_str());
        self.release_name(&container.name());
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.containers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn get(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.containers.read().unwrap_or_else(PoisonError::into_inner).get(id.as_str()).cloned()
    }

    /// Takes a name for a container that is to have it.
    pub(crate) fn take_name(&self, name: &str, id: &ContainerId) -> Result<NameGuard<'_>> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(name) {
            Some(holder) => Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to \
                 remove (or rename) that container to be able to reuse that name."
            ))),
            None => {
                names.insert(name.to_owned(), id.clone());
                Ok(NameGuard { registry: self, name: name.to_owned(), kept: false })
            }
        }
    }

    pub(crate) fn release_name(&self, name: &str) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The names in use.
    pub(crate) fn names(&self) -> HashSet<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Finds a container as Docker does: by its full id, then by its name, then by the beginning of its id.
    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<Container>> {
        let containers = self.containers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(container) = containers.get(wanted) {
            return Ok(container.clone());
        }
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        let holder = self.names.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(container) = holder.and_then(|id| containers.get(id.as_str())) {
            return Ok(container.clone());
        }
        let none = || Error::not_found(format!("No such container: {wanted}"));
        if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(none());
        }
        let mut found = containers
            .range(wanted.to_owned()..)
            .take_while(|(id, _)| id.starts_with(wanted))
            .map(|(_, c)| c);
        match (found.next(), found.next()) {
            (None, _) => Err(none()),
            (Some(one), None) => Ok(one.clone()),
            _ => Err(Error::invalid(format!("multiple IDs found with provided prefix: {wanted}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::tests::record;

    #[test]
    fn full_ids_come_before_names_and_names_before_prefixes() {
        let registry = Registry::default();
        let (a, b) = ("ab".repeat(32), "ac".repeat(32));
        registry.insert(Container::new(record(&a, "ac")));
        registry.insert(Container::new(record(&b, &a)));
        let find = |text: &str| registry.find(text).map(|c| c.id.to_string()).map_err(|e| e.to_string());
        assert_eq!(find(&a), Ok(a.clone()));
        assert_eq!(find("ac"), Ok(a.clone()));
        assert_eq!(find("/ac"), Ok(a.clone()));
        assert_eq!(find("aca"), Ok(b));
        assert_eq!(find("a"), Err("multiple IDs found with provided prefix: a".into()));
        assert_eq!(find("x"), Err("No such container: x".into()));
        assert_eq!(find(""), Err("No such container: ".into()));
    }

    #[test]
    fn a_name_is_taken_once_and_let_go() {
        let registry = Registry::default();
        let id = ContainerId::from_random([1; 32]);
        let guard = registry.take_name("x", &id).unwrap();
        let refused = registry.take_name("x", &id).unwrap_err();
        assert_eq!(refused.kind(), creel_types::ErrorKind::Conflict);
        drop(guard);
        registry.take_name("x", &id).unwrap().keep();
        assert!(registry.take_name("x", &id).is_err());
    }
}
