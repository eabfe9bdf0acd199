//! Volume drivers: the calls `VolumeDriver.*`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;
use crate::call::call;
use crate::discover::{Address, Plugins};

/// For questions that only look.
const SOON: Duration = Duration::from_secs(10);
/// For what may take its time: making, mounting, removing.
const LATE: Duration = Duration::from_secs(120);

/// One plugin that is a volume driver.
#[derive(Debug, Clone)]
pub struct VolumeDriver {
    name: String,
    address: Address,
}

/// A volume as its driver tells of it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PluginVolume {
    /// Its name.
    pub name: String,
    /// Where it is mounted on the host; may be empty.
    pub mountpoint: String,
    /// When it was made, RFC 3339; may be empty.
    pub created_at: String,
    /// Whatever else the driver tells of it.
    pub status: Option<Value>,
}

impl Plugins {
    /// Activates the plugin of this name, which must be a volume driver.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADriver`], [`Error::Silent`].
    pub async fn volume_driver(&self, name: &str) -> Result<VolumeDriver, Error> {
        let driver = VolumeDriver { name: name.to_owned(), address: self.find(name)? };
        let answer = driver.ask("Plugin.Activate", &json!({}), SOON).await?;
        let implements = answer["Implements"].as_array().into_iter().flatten();
        if implements.into_iter().any(|what| what == "VolumeDriver") {
            Ok(driver)
        } else {
            Err(Error::NotADriver(name.to_owned()))
        }
    }
}

impl VolumeDriver {
    async fn ask(&self, method: &'static str, question: &Value, patience: Duration) -> Result<Value, Error> {
        let answer = call(&self.address, method, question, patience).await.map_err(|why| Error::Silent {
            name: self.name.clone(),
            method,
            why,
        })?;
        match answer["Err"].as_str() {
            Some(why) if !why.is_empty() => Err(Error::Refused { method, why: why.to_owned() }),
            _ => Ok(answer),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, method: &'static str, value: &Value) -> Result<T, Error> {
        let silent =
            |e: serde_json::Error| Error::Silent { name: self.name.clone(), method, why: e.to_string() };
        T::deserialize(value).map_err(silent)
    }

    fn mountpoint(&self, method: &'static str, answer: &Value) -> Result<String, Error> {
        match answer["Mountpoint"].as_str() {
            Some(path) if path.starts_with('/') => Ok(path.to_owned()),
            _ => Err(Error::Silent {
                name: self.name.clone(),
                method,
                why: format!("it names no absolute path: {}", answer["Mountpoint"]),
            }),
        }
    }

    /// Makes a volume.
    ///
    /// # Errors
    /// [`Error::Refused`] with the plugin's words, [`Error::Silent`].
    pub async fn create(&self, volume: &str, options: &BTreeMap<String, String>) -> Result<(), Error> {
        self.ask("VolumeDriver.Create", &json!({"Name": volume, "Opts": options}), LATE).await.map(drop)
    }

    /// Removes a volume.
    ///
    /// # Errors
    /// As [`VolumeDriver::create`].
    pub async fn remove(&self, volume: &str) -> Result<(), Error> {
        self.ask("VolumeDriver.Remove", &json!({"Name": volume}), LATE).await.map(drop)
    }

    /// Mounts a volume for a user, and tells where.
    ///
    /// # Errors
    /// As [`VolumeDriver::create`]; [`Error::Silent`] for a place that is no absolute path.
    pub async fn mount(&self, volume: &str, user: &str) -> Result<String, Error> {
        const METHOD: &str = "VolumeDriver.Mount";
        let answer = self.ask(METHOD, &json!({"Name": volume, "ID": user}), LATE).await?;
        self.mountpoint(METHOD, &answer)
    }

    /// Ends what [`VolumeDriver::mount`] began for this user.
    ///
    /// # Errors
    /// As [`VolumeDriver::create`].
    pub async fn unmount(&self, volume: &str, user: &str) -> Result<(), Error> {
        self.ask("VolumeDriver.Unmount", &json!({"Name": volume, "ID": user}), LATE).await.map(drop)
    }

    /// Where a volume is mounted; empty if it is not.
    ///
    /// # Errors
    /// As [`VolumeDriver::create`].
    pub async fn path(&self, volume: &str) -> Result<String, Error> {
        let answer = self.ask("VolumeDriver.Path", &json!({"Name": volume}), SOON).await?;
        Ok(answer["Mountpoint"].as_str().unwrap_or_default().to_owned())
    }

    /// What the driver tells of a volume.
    ///
    /// # Errors
    /// As [`VolumeDriver::create`]: that it knows none is in the plugin's own words.
    pub async fn get(&self, volume: &str) -> Result<PluginVolume, Error> {
        const METHOD: &str = "VolumeDriver.Get";
        let answer = self.ask(METHOD, &json!({"Name": volume}), SOON).await?;
        self.read(METHOD, &answer["Volume"])
    }

    /// All volumes that the driver knows.
    ///
    /// # Errors
    /// As [`VolumeDriver::create`].
    pub async fn list(&self) -> Result<Vec<PluginVolume>, Error> {
        const METHOD: &str = "VolumeDriver.List";
        let answer = self.ask(METHOD, &json!({}), SOON).await?;
        let list: Option<Vec<PluginVolume>> = self.read(METHOD, &answer["Volumes"])?;
        Ok(list.unwrap_or_default())
    }

    /// `local` or `global`; a driver that does not say is local.
    pub async fn scope(&self) -> String {
        let answer = self.ask("VolumeDriver.Capabilities", &json!({}), SOON).await;
        let scope =
            answer.ok().and_then(|a| a["Capabilities"]["Scope"].as_str().map(str::to_ascii_lowercase));
        scope.filter(|scope| scope == "global").unwrap_or_else(|| "local".to_owned())
    }
}
