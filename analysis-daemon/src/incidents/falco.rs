//! The facts of an incident under Falco's field names, for what already reads Falco.
//!
//! A fact that is not known is left out, as Falco leaves it out or says `<NA>`.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use lazaret_types::{Access, ContainerFields, FileFields, Pod, ProcessFields};
use serde_json::Value;

/// Falco shortens the ids that container engines make to this many digits.
const SHORT_ID: usize = 12;

/// Digits of such an id.
const LONG_ID: usize = 64;

/// `output_fields` in the making.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, Value>);

impl Fields {
    pub(super) fn finish(self) -> BTreeMap<String, Value> {
        self.0
    }

    pub(super) fn event(&mut self, time: SystemTime, access: Option<Access>) {
        // Falco's evt.time is a number: nanoseconds since 1970.
        let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.set(
            "evt.time",
            u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX),
        );
        if let Some(access) = access {
            let kind = match access {
                Access::Open => "open",
                Access::Exec => "execve",
                Access::Write => "close",
            };
            self.set("evt.type", kind);
        }
    }

    pub(super) fn container(&mut self, container: &ContainerFields, name: Option<&str>, pod: Option<&Pod>) {
        self.set("container.id", short_id(&container.id));
        self.set("container.full_id", container.id.as_str());
        self.set("container.name", name.unwrap_or(&container.id));
        if let Some(image) = &container.image {
            self.image(image);
        }
        if let Some(pod) = pod {
            self.set("k8s.pod.name", pod.name.as_str());
            self.set("k8s.ns.name", pod.namespace.as_str());
            self.set("k8s.pod.uid", pod.uid.as_str());
            self.set("k8s.pod.sandbox_id", short_id(&pod.sandbox_id));
        }
    }

    pub(super) fn process(&mut self, process: &ProcessFields) {
        self.set("proc.pid", process.pid);
        if let Some(uid) = process.uid {
            self.set("user.uid", uid);
        }
        if let Some(comm) = &process.comm {
            self.set("proc.name", comm.as_str());
        }
        if let Some(exe) = &process.exe {
            self.set("proc.exepath", exe.as_str());
        }
    }

    pub(super) fn file(&mut self, file: &FileFields) {
        self.set("fd.name", file.path.as_str());
    }

    fn image(&mut self, image: &str) {
        let (name, digest) = image
            .split_once('@')
            .map_or((image, None), |(name, digest)| (name, Some(digest)));
        // A colon before the last slash separates a port, not a tag.
        let tag_at = name
            .rfind(':')
            .filter(|at| !name.get(*at..).is_some_and(|rest| rest.contains('/')));
        let (repository, tag) = tag_at.map_or((name, ""), |at| name.split_at(at));
        self.set("container.image", image);
        self.set("container.image.repository", repository);
        if let Some(tag) = tag.strip_prefix(':') {
            self.set("container.image.tag", tag);
        }
        if let Some(digest) = digest {
            self.set("container.image.digest", digest);
        }
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

fn short_id(id: &str) -> &str {
    let generated = id.len() == LONG_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if generated {
        id.get(..SHORT_ID).unwrap_or(id)
    } else {
        id
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test is a panic"
)]
mod tests {
    use super::*;

    fn image(reference: &str) -> [Option<String>; 3] {
        let mut fields = Fields::default();
        fields.image(reference);
        let fields = fields.finish();
        ["repository", "tag", "digest"].map(|part| {
            let value = fields.get(&format!("container.image.{part}"))?;
            Some(value.as_str().unwrap().to_owned())
        })
    }

    #[test]
    fn takes_an_image_reference_apart() {
        for (reference, parts) in [
            ("busybox", ["busybox", "", ""]),
            (
                "docker.io/library/busybox:1.36",
                ["docker.io/library/busybox", "1.36", ""],
            ),
            ("localhost:5000/a/b", ["localhost:5000/a/b", "", ""]),
            ("localhost:5000/a/b:t", ["localhost:5000/a/b", "t", ""]),
            ("r.io/a@sha256:00", ["r.io/a", "", "sha256:00"]),
            ("r.io/a:t@sha256:00", ["r.io/a", "t", "sha256:00"]),
            ("", ["", "", ""]),
        ] {
            let [repository, rest @ ..] = parts;
            let rest = rest.map(|part| (!part.is_empty()).then(|| part.to_owned()));
            let [tag, digest] = rest;
            assert_eq!(
                image(reference),
                [Some(repository.to_owned()), tag, digest],
                "{reference}"
            );
        }
    }

    #[test]
    fn shortens_generated_ids_only() {
        assert_eq!(short_id(&"0123456789abcdef".repeat(4)), "0123456789ab");
        assert_eq!(
            short_id("my-container-with-a-long-name"),
            "my-container-with-a-long-name"
        );
    }
}
