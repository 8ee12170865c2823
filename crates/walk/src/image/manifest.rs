//! From the digest that an image begins with to its manifest and its layers.
//! What is read was written by whoever pushed the image.

use serde::Deserialize;
use serde_json::from_slice;
use sha2::{Digest, Sha256};

use super::{ImageError, MAX_LAYERS};

/// Indexes within each other.
const MAX_INDEXES: usize = 4;

/// A manifest, or an index of manifests: <https://github.com/opencontainers/image-spec>.
#[derive(Debug, Deserialize)]
struct Document {
    /// Of a manifest.
    config: Option<Descriptor>,
    /// Of an index.
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Debug, Deserialize)]
struct Config {
    rootfs: Rootfs,
}

#[derive(Debug, Deserialize)]
struct Rootfs {
    diff_ids: Vec<String>,
}

/// The digest of the manifest for this machine and the chain id of its layers.
/// `read` gives the content of a digest.
pub(super) fn resolve(
    target: &str,
    read: impl Fn(&str) -> Result<Vec<u8>, ImageError>,
) -> Result<(String, String), ImageError> {
    let mut digest = target.to_owned();
    for _ in 0..=MAX_INDEXES {
        let document: Document = parse(&digest, &read(&digest)?)?;
        if let Some(config) = document.config {
            let parsed: Config = parse(&config.digest, &read(&config.digest)?)?;
            return Ok((digest, chain_id(&parsed.rootfs.diff_ids)?));
        }
        digest = ours(document.manifests.unwrap_or_default())
            .ok_or_else(|| malformed(&digest, "nothing in it is for this machine"))?;
    }
    Err(malformed(target, "too many indexes within each other"))
}

fn parse<'a, T: Deserialize<'a>>(digest: &str, blob: &'a [u8]) -> Result<T, ImageError> {
    from_slice(blob).map_err(|error| malformed(digest, &error.to_string()))
}

fn malformed(digest: &str, why: &str) -> ImageError {
    ImageError::Malformed(format!("{digest}: {why}"))
}

/// The manifest for this machine; the only one there is need not say.
fn ours(manifests: Vec<Descriptor>) -> Option<String> {
    let only = manifests.len() == 1;
    let mut ours = manifests.into_iter().filter(|manifest| match &manifest.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture(),
        None => only,
    });
    ours.next().map(|manifest| manifest.digest)
}

/// As Go, and therefore OCI, calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The name of the snapshot with all layers applied; empty for an image without.
fn chain_id(diff_ids: &[String]) -> Result<String, ImageError> {
    if diff_ids.len() > MAX_LAYERS {
        return Err(ImageError::Malformed(format!("more than {MAX_LAYERS} layers")));
    }
    let chain = diff_ids.iter().cloned().reduce(|chain, diff_id| {
        let digest = Sha256::digest(format!("{chain} {diff_id}"));
        digest.iter().fold("sha256:".to_owned(), |mut text, byte| {
            text.push_str(&format!("{byte:02x}"));
            text
        })
    });
    Ok(chain.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of the blob that is called after its name here.
    fn read(digest: &str) -> Result<Vec<u8>, ImageError> {
        let index = format!(
            r#"{{"manifests": [
                {{"digest": "attestation", "platform": {{"os": "unknown", "architecture": "unknown"}}}},
                {{"digest": "manifest", "platform": {{"os": "linux", "architecture": "{}"}}}}]}}"#,
            architecture()
        );
        let text = match digest {
            "index" => &index,
            "foreign" => {
                r#"{"manifests": [{"digest": "manifest", "platform": {"os": "plan9", "architecture": "mips"}}]}"#
            }
            "loop" => r#"{"manifests": [{"digest": "loop"}]}"#,
            "manifest" => r#"{"config": {"digest": "config"}, "layers": [1, 2]}"#,
            "config" => r#"{"rootfs": {"type": "layers", "diff_ids": ["sha256:a", "sha256:b"]}}"#,
            _ => "[",
        };
        Ok(text.as_bytes().to_vec())
    }

    #[test]
    fn finds_the_manifest_of_this_machine() {
        let expected = (
            "manifest".to_owned(),
            // printf 'sha256:a sha256:b' | sha256sum
            chain_id(&["sha256:a".into(), "sha256:b".into()]).unwrap(),
        );
        assert_eq!(resolve("index", read).unwrap(), expected);
        assert_eq!(resolve("manifest", read).unwrap(), expected);
    }

    #[test]
    fn refuses_what_is_no_image_for_us() {
        for target in ["foreign", "loop", "garbage"] {
            assert!(
                matches!(resolve(target, read), Err(ImageError::Malformed(_))),
                "{target}"
            );
        }
    }

    #[test]
    fn chains_layers_as_the_specification_does() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(chain_id(&[]).unwrap(), "");
        assert_eq!(chain_id(&ids(&["sha256:a"])).unwrap(), "sha256:a");
        assert_eq!(
            chain_id(&ids(&["sha256:a", "sha256:b"])).unwrap(),
            "sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8"
        );
        assert!(chain_id(&vec![String::new(); MAX_LAYERS + 1]).is_err());
    }
}
