//! Manifest: what is remembered of a local cluster between two commands, and where its files are.
//!
//! ```text
//! target/kafka/                 the folder of all clusters
//!   .jars-4.3.0/                Kafka's jars, for all of them
//!   .default.lock               held while a command changes the cluster `default`
//!   default/                    the cluster
//!     cluster.json              this file: ports and process ids
//!     broker-1/server.properties, broker.log, data/
//! ```

use std::{
    collections::BTreeMap,
    env, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Error;

/// The description of a cluster, kept as `cluster.json`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Manifest {
    /// The version of this format.
    pub(super) version: u32,
    pub(super) name: String,
    /// The version of Apache Kafka.
    pub(super) kafka: String,
    pub(super) cluster_id: String,
    /// Broker properties that the user asked for.
    pub(super) properties: BTreeMap<String, String>,
    /// Sorted by `id`, which counts from 1 without gaps.
    pub(super) brokers: Vec<Broker>,
}

/// One broker in the description of a cluster.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Broker {
    pub(super) id: u16,
    pub(super) port: u16,
    pub(super) controller_port: u16,
    /// The process that was started last; it need not run any more.
    pub(super) pid: Option<u32>,
}

/// Where the files of one cluster are.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The folder of all clusters; absolute.
    pub(super) base: PathBuf,
    /// The name of this one; a plain file name.
    pub(super) name: String,
}

/// The right to change a cluster; gone when dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Layout {
    /// Finds the files of the cluster `name`, in `base` or in the folder that is usual.
    pub(super) fn new(base: Option<&Path>, name: &str) -> Result<Self, Error> {
        let is_name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts_well || !name.chars().all(is_name_char) {
            return Err(Error::InvalidName { name: name.to_owned() });
        }
        Ok(Self { base: base_folder(base)?, name: name.to_owned() })
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.base.join(&self.name)
    }

    pub(super) fn manifest(&self) -> PathBuf {
        self.folder().join("cluster.json")
    }

    pub(super) fn broker(&self, id: u16) -> PathBuf {
        self.folder().join(format!("broker-{id}"))
    }

    pub(super) fn properties(&self, id: u16) -> PathBuf {
        self.broker(id).join("server.properties")
    }

    pub(super) fn data(&self, id: u16) -> PathBuf {
        self.broker(id).join("data")
    }

    pub(super) fn log(&self, id: u16) -> PathBuf {
        self.broker(id).join("broker.log")
    }

    /// Waits for the right to change the cluster.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        lock(&self.base, &self.name)
    }

    /// Reads the description; `None` where there is no such cluster.
    pub(super) fn read(&self) -> Result<Option<Manifest>, Error> {
        let path = self.manifest();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("reading {}", path.display()))(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| Error::Manifest { path, source })
    }

    /// Writes the description, all of it or nothing.
    pub(super) fn write(&self, manifest: &Manifest) -> Result<(), Error> {
        let path = self.manifest();
        let written = path.with_extension("json.part");
        let mut text = serde_json::to_vec_pretty(manifest)
            .map_err(|source| Error::Manifest { path: path.clone(), source })?;
        text.push(b'\n');
        fs::write(&written, text)
            .and_then(|()| fs::rename(&written, &path))
            .map_err(Error::io(format!("writing {}", path.display())))
    }
}

/// Returns the names of all clusters in the folder of clusters, sorted.
pub(super) fn clusters(base: Option<&Path>) -> Result<Vec<String>, Error> {
    let base = base_folder(base)?;
    let entries = match fs::read_dir(&base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("reading {}", base.display()))(error)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| base.join(name).join("cluster.json").is_file())
        .collect();
    names.sort();
    Ok(names)
}

/// Waits for the right to change what `name` stands for in the folder `base`.
pub(super) fn lock(base: &Path, name: &str) -> Result<Lock, Error> {
    let path = base.join(format!(".{name}.lock"));
    fs::create_dir_all(base)
        .and_then(|()| File::create(&path))
        .and_then(|file| file.lock().map(|()| Lock { _file: file }))
        .map_err(Error::io(format!("locking {}", path.display())))
}

/// Makes `base` absolute; without one, takes `kafka` in Cargo's target folder.
fn base_folder(base: Option<&Path>) -> Result<PathBuf, Error> {
    let base = match (base, env::var_os("CARGO_TARGET_DIR")) {
        (Some(base), _) => base.to_owned(),
        (None, Some(target)) => PathBuf::from(target).join("kafka"),
        (None, None) => workspace_folder()?.join("target").join("kafka"),
    };
    let base = std::path::absolute(&base)
        .map_err(Error::io(format!("finding the folder {}", base.display())))?;
    // Kafka splits `log.dirs` at commas, Java a class path at colons, and a properties file has
    // backslashes for escapes.
    if base.to_str().is_none_or(|path| path.contains([',', ':', '\\', '\n'])) {
        return Err(Error::InvalidFolder { folder: base });
    }
    Ok(base)
}

/// Returns the nearest folder with a `Cargo.lock`, so that a command finds the same clusters from
/// anywhere in a workspace; without one, the current folder.
fn workspace_folder() -> Result<PathBuf, Error> {
    let here = env::current_dir().map_err(Error::io("finding the current folder"))?;
    let workspace = here.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    Ok(workspace.unwrap_or(&here).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_file_names() {
        for good in ["default", "ci-1", "a.b_c"] {
            assert!(Layout::new(Some(Path::new("base")), good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".jars-4.3.0", "a/b", "a b", "-x"] {
            let layout = Layout::new(Some(Path::new("base")), bad);
            assert!(matches!(layout, Err(Error::InvalidName { .. })), "{bad}");
        }
    }

    #[test]
    fn folders_that_kafka_would_split_are_refused() {
        for bad in ["/a,b", "/a:b", "/a\\b"] {
            let layout = Layout::new(Some(Path::new(bad)), "x");
            assert!(matches!(layout, Err(Error::InvalidFolder { .. })), "{bad}");
        }
    }

    #[test]
    fn a_manifest_survives_writing_and_reading() {
        let base = env::temp_dir().join(format!("bus-manifest-{}", std::process::id()));
        let layout = Layout::new(Some(&base), "x").unwrap();
        assert_eq!(layout.read().unwrap(), None);
        let manifest = Manifest {
            version: 1,
            name: "x".into(),
            kafka: "4.3.0".into(),
            cluster_id: "id".into(),
            properties: BTreeMap::from([("a".into(), "b".into())]),
            brokers: vec![Broker { id: 1, port: 9092, controller_port: 9093, pid: Some(7) }],
        };
        fs::create_dir_all(layout.folder()).unwrap();
        layout.write(&manifest).unwrap();
        assert_eq!(layout.read().unwrap(), Some(manifest));
        assert_eq!(clusters(Some(&base)).unwrap(), ["x"]);
        fs::remove_dir_all(&base).unwrap();
    }
}
