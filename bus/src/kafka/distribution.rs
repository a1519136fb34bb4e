//! Distribution: the Java of this machine and the jars of Apache Kafka from Maven Central.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Error, log, manifest, properties::KAFKA_VERSION};

/// The oldest Java that Kafka 4 brokers start on.
pub(super) const JAVA_MIN: u32 = 17;

/// The plugin that copies the jars; named with its version, so that each Maven takes the same.
const COPY_GOAL: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

const POM: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- Written by `bus kafka up` to fetch Apache Kafka. -->
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>bus</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>KAFKA_VERSION</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>KAFKA_VERSION</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"#;

/// What runs a broker: a Java and the folder of Kafka's jars.
#[derive(Debug)]
pub(super) struct Distribution {
    java: PathBuf,
    jars: PathBuf,
}

impl Distribution {
    /// Finds Java, and Kafka's jars in the folder `base`; fetches them if they aren't there,
    /// calling `before_download` first.
    pub(super) fn find(base: &Path, before_download: impl FnOnce()) -> Result<Self, Error> {
        let java = find_java()?;
        let name = format!("jars-{KAFKA_VERSION}");
        let jars = base.join(format!(".{name}"));
        // Others may want the same jars at the same time, for another cluster.
        let _lock = manifest::lock(base, &name)?;
        if !jars.is_dir() {
            before_download();
            download(base, &jars)?;
        }
        Ok(Self { java, jars })
    }

    /// Returns the command that runs one of Kafka's main classes.
    pub(super) fn java(&self, options: &[&str], class: &str) -> Command {
        let mut command = Command::new(&self.java);
        command
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true"])
            .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
            .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS")
            // The dump of all settings at every start is longer than all that follows.
            .arg("-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn")
            .args(options)
            .arg("-classpath")
            .arg(self.jars.join("*"))
            .arg(class)
            .stdin(Stdio::null());
        command
    }
}

/// Finds a Java that is new enough.
fn find_java() -> Result<PathBuf, Error> {
    let java = match env::var_os("JAVA_HOME") {
        Some(home) if !home.is_empty() => Path::new(&home).join("bin").join("java"),
        _ => PathBuf::from("java"),
    };
    let output = match Command::new(&java).arg("-version").stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoJava { java });
        }
        Err(error) => return Err(Error::io(format!("running {}", java.display()))(error)),
    };
    // Where no JDK is installed, some systems have a `java` that only says so and fails.
    if !output.status.success() {
        return Err(Error::NoJava { java });
    }
    let text = String::from_utf8_lossy(&output.stderr);
    match java_version(&text) {
        Some((major, found)) if major < JAVA_MIN => Err(Error::OldJava { found: found.to_owned() }),
        // One that doesn't tell its version in the usual form may still do.
        _ => Ok(java),
    }
}

/// Reads `openjdk version "17.0.15" 2025-04-15` and the older `java version "1.8.0_402"`.
fn java_version(text: &str) -> Option<(u32, &str)> {
    let found = text.split_once("version \"")?.1.split_once('"')?.0;
    let mut numbers = found.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match numbers.next()?.ok()? {
        1 => Some((numbers.next()?.ok()?, found)),
        major => Some((major, found)),
    }
}

/// Lets Maven copy Kafka and all that it needs to the folder `jars`, all of it or nothing.
fn download(base: &Path, jars: &Path) -> Result<(), Error> {
    let part = base.join(".jars.part");
    let log = base.join(".jars.log");
    let doing = || Error::io(format!("writing {}", part.display()));
    if part.exists() {
        fs::remove_dir_all(&part).map_err(doing())?;
    }
    fs::create_dir_all(&part).map_err(doing())?;
    let pom = part.join("pom.xml");
    fs::write(&pom, POM.replace("KAFKA_VERSION", KAFKA_VERSION)).map_err(doing())?;

    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg(COPY_GOAL)
        .arg(format!("-DoutputDirectory={}", part.display()))
        .args(["-DincludeScope=runtime", "-Dstyle.color=never"])
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoMaven),
        Err(error) => return Err(Error::io("running mvn")(error)),
    };
    let text = [output.stdout, output.stderr].concat();
    fs::write(&log, &text).map_err(Error::io(format!("writing {}", log.display())))?;
    let has_kafka = part.join(format!("kafka_2.13-{KAFKA_VERSION}.jar")).is_file();
    if !output.status.success() || !has_kafka {
        let text = String::from_utf8_lossy(&text);
        return Err(Error::Download { excerpt: log::first_errors(&text), log });
    }
    fs::rename(&part, jars).map_err(doing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_are_read_in_both_forms() {
        let new = "openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment";
        assert_eq!(java_version(new), Some((17, "17.0.15")));
        assert_eq!(java_version("java version \"1.8.0_402\""), Some((8, "1.8.0_402")));
        assert_eq!(java_version("openjdk version \"25-ea\" 2025-09-16"), Some((25, "25-ea")));
        assert_eq!(java_version("something else"), None);
    }

    #[test]
    fn the_pom_names_one_version_of_kafka() {
        let pom = POM.replace("KAFKA_VERSION", KAFKA_VERSION);
        assert_eq!(pom.matches("<version>4.3.0</version>").count(), 2);
    }
}
