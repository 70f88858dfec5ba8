//! A container that is made for one command, heard from its first byte, and removed.
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::{Value, json};

use super::{
    attached::{Attached, Input},
    client::{Engine, EngineError},
    excuse::refused,
    exec::ExecError,
    frames::{Channel, Piece},
};

/// The label that tells containers of ours from all others, and from each other. Its value is the mark.
const LABEL: &str = "rusuban.mark";

/// So much of a helper's last words is kept.
const WORDS: usize = 4 << 10;

/// A container to be made. It has no `Debug`: the environment may hold secrets.
#[derive(Clone, Default)]
pub struct Once {
    /// Its name.
    pub name: String,
    /// Told apart by this from a later one of its name.
    pub mark: String,
    /// What it is made from; it must be there already.
    pub image: String,
    /// Instead of the image's own entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's own command.
    pub arguments: Option<Vec<String>>,
    /// Added to the image's environment.
    pub environment: Vec<(String, String)>,
    /// As whom, as the image knows users.
    pub user: Option<String>,
    /// Where, in the container.
    pub folder: Option<String>,
    /// What is mounted in it.
    pub volumes: Vec<VolumeMount>,
    /// Its network [default: the engine's own].
    pub network: Option<String>,
    /// Bytes of memory for all of its processes.
    pub memory: Option<u64>,
    /// Labels beside our own.
    pub labels: Vec<(String, String)>,
    /// It is one of our own helpers.
    pub helper: Option<Helping>,
}

/// What one of our own helpers is given: an input, no network, a root that it cannot write to, and no right but these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Helping {
    /// What it may do as root, such as `DAC_READ_SEARCH`.
    pub capabilities: Vec<&'static str>,
    /// A folder of its own on the engine's disk, which goes with it.
    pub spool: Option<String>,
}

/// A volume or a folder of the engine's host, and where a container sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// A volume's name, or an absolute path.
    pub source: String,
    /// An absolute path.
    pub target: String,
    /// The container may not write to it.
    pub read_only: bool,
}

/// A container of ours, connected to what it prints. Whoever made it removes it, whatever comes of it: [`Engine::remove_once`].
#[derive(Debug)]
pub struct Working {
    engine: Engine,
    id: String,
    name: String,
    program: String,
    folder: Option<String>,
    attached: Attached,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnceEnded {
    /// Its exit code, or 128 and the number of a signal.
    pub code: i32,
    /// The kernel killed something in it because its memory was used up.
    pub out_of_memory: bool,
}

impl VolumeMount {
    /// From `source:target` or `source:target:ro`.
    ///
    /// # Errors
    /// Why it is no volume, in words.
    pub fn read(text: &str) -> Result<Self, String> {
        let (source, target, mode) = match text.split(':').collect::<Vec<_>>()[..] {
            [source, target] => (source, target, "rw"),
            [source, target, mode] => (source, target, mode),
            _ => return Err(format!("`{text}` is no volume")),
        };
        if source.is_empty() || source.starts_with('.') || source.contains('/') && !source.starts_with('/') {
            return Err(format!("`{source}` is neither a volume's name nor an absolute path"));
        }
        if !target.starts_with('/') {
            return Err(format!("`{target}` is no absolute path"));
        }
        let read_only = match mode {
            "ro" => true,
            "rw" => false,
            other => return Err(format!("`{other}` is neither `ro` nor `rw`")),
        };
        Ok(Self { source: source.to_owned(), target: target.to_owned(), read_only })
    }

    fn mount(&self) -> Value {
        // Unlike the older way of writing it, this makes no folder on the host where there is none.
        let kind = if self.source.starts_with('/') { "bind" } else { "volume" };
        json!({ "Type": kind, "Source": self.source, "Target": self.target, "ReadOnly": self.read_only })
    }
}

impl Engine {
    /// Makes the container and listens to it; it is not started yet.
    ///
    /// # Errors
    /// When there is no such image, the name is taken, or the engine refuses.
    pub async fn create_once(&self, once: &Once) -> Result<Working, ExecError> {
        let labels: serde_json::Map<String, Value> = (once.labels.iter())
            .chain([&(LABEL.to_owned(), once.mark.clone())])
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect();
        let variables: Vec<String> = once.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut body = json!({
            "Image": once.image,
            "Env": variables,
            "User": once.user.as_deref().unwrap_or_default(),
            "WorkingDir": once.folder.as_deref().unwrap_or_default(),
            "Labels": labels,
            "Tty": false,
            "AttachStdout": true,
            "AttachStderr": true,
            "HostConfig": {
                "AutoRemove": false,
                // We hear all of it ourselves: it need not fill the disk of the engine, or lie there.
                "LogConfig": { "Type": "none" },
                "Mounts": once.volumes.iter().map(VolumeMount::mount).collect::<Vec<_>>(),
                "NetworkMode": once.network.as_deref().unwrap_or("default"),
            },
        });
        if let Some(helping) = &once.helper {
            helping.dress(&mut body);
        }
        if let Some(entrypoint) = &once.entrypoint {
            body["Entrypoint"] = json!(entrypoint);
        }
        if let Some(arguments) = &once.arguments {
            body["Cmd"] = json!(arguments);
        }
        if let Some(bytes) = once.memory {
            // Swap beyond it would be a way around it.
            body["HostConfig"]["Memory"] = json!(bytes);
            body["HostConfig"]["MemorySwap"] = json!(bytes);
        }
        let query = [("name", once.name.as_str())];
        let created = self.post("/containers/create", &query, Some(&body), Some(Duration::from_secs(120))).await;
        let created = created.map_err(|error| match error {
            EngineError::NotFound(said) if said.to_lowercase().contains("image") => {
                ExecError::NoImage(once.image.clone())
            }
            EngineError::Conflict(_) => ExecError::NameTaken(once.name.clone()),
            error => error.into(),
        })?;
        let id = created["Id"].as_str().unwrap_or_default().to_owned();
        let input = if once.helper.is_some() { "1" } else { "0" };
        let query = [("stream", "1"), ("stdin", input), ("stdout", "1"), ("stderr", "1")];
        let connection = self.upgrade(&format!("/containers/{id}/attach"), &query, None).await?;
        Ok(Working {
            engine: self.clone(),
            id,
            name: once.name.clone(),
            program: once.entrypoint.iter().chain(&once.arguments).flatten().next().cloned().unwrap_or_default(),
            folder: once.folder.clone(),
            attached: Attached::new(connection),
        })
    }

    /// Removes a container that was made by [`Engine::create_once`] under this name and with this mark, at work or not, with
    /// the nameless volumes that it was given. One that is gone is fine, and so is another of that name: it is not touched.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub async fn remove_once(&self, name: &str, mark: &str) -> Result<(), EngineError> {
        let found = match self.container(name).await {
            Err(EngineError::NotFound(_)) => return Ok(()),
            found => found?,
        };
        if found.label(LABEL) != Some(mark) {
            return Ok(());
        }
        let path = format!("/containers/{}", found.id());
        match self.delete(&path, &[("force", "1"), ("v", "1")]).await {
            Err(EngineError::NotFound(_)) => Ok(()),
            // Somebody else is removing it.
            Err(EngineError::Conflict(said)) if said.contains("already in progress") => Ok(()),
            removed => removed.map(drop),
        }
    }
}

impl Helping {
    fn dress(&self, body: &mut Value) {
        for key in ["AttachStdin", "OpenStdin", "StdinOnce"] {
            body[key] = json!(true);
        }
        body["User"] = json!("0:0");
        let host = &mut body["HostConfig"];
        host["NetworkMode"] = json!("none");
        host["ReadonlyRootfs"] = json!(true);
        host["CapDrop"] = json!(["ALL"]);
        host["CapAdd"] = json!(self.capabilities);
        host["SecurityOpt"] = json!(["no-new-privileges"]);
        host["PidsLimit"] = json!(64);
        // Owners' numbers are those of the host, and not of a container that has its own.
        host["UsernsMode"] = json!("host");
        if let (Some(spool), Some(mounts)) = (&self.spool, host["Mounts"].as_array_mut()) {
            // Without a name it goes with the container.
            mounts.push(json!({ "Type": "volume", "Target": spool }));
        }
    }
}

impl Working {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Starts it.
    ///
    /// # Errors
    /// When its program, its network or a folder is not there, and whatever else the engine says.
    pub async fn start(&mut self) -> Result<(), ExecError> {
        self.engine.start(&self.id).await.map_err(|error| {
            refused(&error, &self.program, &self.name, self.folder.as_deref()).unwrap_or_else(|| error.into())
        })
    }

    /// The next bytes that it printed, on either channel; none when it has closed both, as it does at its end.
    /// Dropped half way, it loses nothing.
    ///
    /// # Errors
    /// When the connection breaks, or what comes over it is damaged.
    pub async fn next(&mut self) -> Result<Option<Piece>, ExecError> {
        self.attached.next().await.map_err(|lost| ExecError::Lost(lost.to_string()))
    }

    /// Its input, once, if it has one.
    pub fn take_input(&mut self) -> Option<Input> {
        self.attached.take_input()
    }

    /// What it prints on its standard output, and at the end an error: how it ended, with its last words.
    pub fn output(self) -> impl Stream<Item = anyhow::Result<Bytes>> + Send + Unpin + 'static {
        Box::pin(stream::unfold(Some((self, Vec::new())), |state| async {
            let (mut working, mut words) = state?;
            loop {
                match working.next().await {
                    Ok(Some(Piece { channel: Channel::Output, bytes })) => {
                        return Some((Ok(bytes), Some((working, words))));
                    }
                    Ok(Some(Piece { bytes, .. })) => {
                        words.extend_from_slice(&bytes);
                        let surplus = words.len().saturating_sub(WORDS);
                        words.drain(..surplus);
                    }
                    Ok(None) => {
                        let how = match working.ended().await {
                            Ok(OnceEnded { out_of_memory: true, .. }) => {
                                "was killed, because memory was used up".to_owned()
                            }
                            Ok(OnceEnded { code, .. }) => format!("ended with exit code {code}"),
                            Err(error) => format!("ended: {error}"),
                        };
                        let words = String::from_utf8_lossy(&words).trim().to_owned();
                        let said = if words.is_empty() { words } else { format!(": {words}") };
                        return Some((Err(anyhow::anyhow!("the container `{}` {how}{said}", working.name)), None));
                    }
                    Err(error) => return Some((Err(error.into()), None)),
                }
            }
        }))
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it was removed, or the engine does not answer.
    pub async fn ended(&mut self) -> Result<OnceEnded, ExecError> {
        let gone = |error: EngineError| match error {
            EngineError::NotFound(_) => ExecError::ContainerGone(self.name.clone()),
            error => error.into(),
        };
        let said = self.engine.post(&format!("/containers/{}/wait", self.id), &[], None, None).await.map_err(gone)?;
        let code = said["StatusCode"].as_i64().and_then(|code| i32::try_from(code).ok());
        let Some(code) = code else {
            return Err(ExecError::Lost("Docker does not say how the container ended".to_owned()));
        };
        let found = self.engine.container(&self.id).await.map_err(gone)?;
        Ok(OnceEnded { code, out_of_memory: found.raw()["State"]["OOMKilled"].as_bool() == Some(true) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_or_refused_with_a_reason() {
        let volume = |source: &str, target: &str, read_only| {
            Ok(VolumeMount { source: source.to_owned(), target: target.to_owned(), read_only })
        };
        for (text, expected) in [
            ("data:/data", volume("data", "/data", false)),
            ("data:/data:ro", volume("data", "/data", true)),
            ("/srv/x:/x:rw", volume("/srv/x", "/x", false)),
            ("data", Err("`data` is no volume".to_owned())),
            ("a:b:c:d", Err("`a:b:c:d` is no volume".to_owned())),
            ("./x:/x", Err("`./x` is neither a volume's name nor an absolute path".to_owned())),
            ("srv/x:/x", Err("`srv/x` is neither a volume's name nor an absolute path".to_owned())),
            (":/x", Err("`` is neither a volume's name nor an absolute path".to_owned())),
            ("data:x", Err("`x` is no absolute path".to_owned())),
            ("data:/x:z", Err("`z` is neither `ro` nor `rw`".to_owned())),
        ] {
            assert_eq!(VolumeMount::read(text), expected, "{text}");
        }
    }
}
