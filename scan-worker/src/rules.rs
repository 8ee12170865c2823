//! Reads and compiles YARA rules; keeps the compiled form for the next start.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lazaret_api::scan::v1::Problem;
use sha2::{Digest, Sha256};
use yara_x::errors::CompileError;
use yara_x::{Compiler, Rules, SourceCode};

use crate::includes::{self, Includes};

/// Files of one start, at most.
const MAX_FILES: usize = 20_000;

/// Bytes of all rule files together, at most.
const MAX_BYTES: u64 = 256 << 20;

/// Of each kind and file; the rest is counted.
const MAX_PROBLEMS: usize = 1_000;

/// What was loaded.
pub struct Loaded {
    /// Compiled.
    pub rules: Rules,
    /// What is wrong with which file.
    pub problems: Vec<Problem>,
    /// Short, and another one whenever a rule changes.
    pub version: String,
}

struct Source {
    path: PathBuf,
    text: Vec<u8>,
}

/// Loads every rule file of these folders. One that does not compile is told and
/// left out; the others work.
///
/// # Errors
/// When a folder that exists cannot be read, or there is more than the limits.
pub fn load(folders: &[PathBuf], cache: Option<&Path>) -> Result<Loaded> {
    let sources = read(folders)?;
    let digest = digest(&sources);
    let version: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let cached = cache.map(|folder| folder.join(format!("rules-{}.bin", hex(&digest))));
    if let Some(rules) = cached.as_deref().and_then(read_cached) {
        return Ok(Loaded {
            rules,
            problems: Vec::new(),
            version,
        });
    }
    let (rules, problems) = compile(&sources, folders);
    // Only what is flawless is kept: flaws are to be told at every start.
    if let (Some(cached), true) = (cached, problems.is_empty())
        && let Err(error) = keep(&rules, &cached)
    {
        eprintln!(
            "lazaret-scan-worker: compiled rules were not kept in {}: {error:#}",
            cached.display()
        );
    }
    Ok(Loaded {
        rules,
        problems,
        version,
    })
}

fn read(folders: &[PathBuf]) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    for folder in folders {
        collect(folder, &mut paths).with_context(|| format!("cannot read {}", folder.display()))?;
    }
    let mut left = MAX_BYTES;
    let mut sources = Vec::with_capacity(paths.len());
    for path in paths {
        let mut text = Vec::new();
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let length = file.take(left + 1).read_to_end(&mut text)? as u64;
        left = left
            .checked_sub(length)
            .with_context(|| format!("rules are larger than {MAX_BYTES} bytes"))?;
        sources.push(Source { path, text });
    }
    Ok(sources)
}

/// Rule files below a folder, in the order of their names. A folder that does not
/// exist has none.
fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // Follows links: an administrator's folder may be made of them (ConfigMaps are).
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        let is_rule = path
            .extension()
            .is_some_and(|extension| extension == "yar" || extension == "yara");
        if entry.file_type()?.is_dir() {
            collect(&path, paths)?;
        } else if metadata.is_file() && is_rule {
            if paths.len() == MAX_FILES {
                bail!("more than {MAX_FILES} rule files");
            }
            paths.push(path);
        }
    }
    Ok(())
}

/// The compiled form depends on the sources and on the engine that compiled them.
fn digest(sources: &[Source]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(concat!(env!("CARGO_PKG_VERSION"), " yara-x "));
    hasher.update(env!("YARA_X_VERSION"));
    for Source { path, text } in sources {
        for part in [path.as_os_str().as_encoded_bytes(), text] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn compile(sources: &[Source], folders: &[PathBuf]) -> (Rules, Vec<Problem>) {
    let folders: Vec<_> = folders
        .iter()
        .filter_map(|folder| folder.canonicalize().ok())
        .collect();
    let mut compiler = Compiler::new();
    compiler.relaxed_re_syntax(true).max_warnings(MAX_PROBLEMS);
    let mut problems = Vec::new();
    for Source { path, text } in sources {
        let includes = includes::of(path, &String::from_utf8_lossy(text), &folders);
        match (includes, path.parent()) {
            (Includes::Index, _) => continue,
            (Includes::Allowed, Some(folder)) => compiler.enable_includes(true).add_include_dir(folder),
            _ => compiler.enable_includes(false),
        };
        let origin = path.to_string_lossy();
        let before = (compiler.errors().len(), compiler.warnings().len());
        // The same rule name in two collections is no conflict.
        compiler.new_namespace(&origin);
        let source = SourceCode::from(text.as_slice()).with_origin(origin.as_ref());
        // Every error, this one too, is in `errors`.
        let _first = compiler.add_source(source).is_err();
        let errors = compiler.errors().iter().skip(before.0);
        problems.extend(
            errors
                .take(MAX_PROBLEMS)
                .map(|error| problem(&origin, text, error)),
        );
        let warnings = compiler.warnings().iter().skip(before.1);
        problems.extend(warnings.map(|warning| {
            let offset = warning.labels().next().map(|label| label.span().start());
            at(&origin, text, offset, warning.title(), true)
        }));
    }
    (compiler.build(), problems)
}

fn problem(origin: &str, text: &[u8], error: &CompileError) -> Problem {
    let label = error.labels().next();
    let detail = label
        .as_ref()
        .map(|label| format!(": {}", label.text()))
        .unwrap_or_default();
    let message = format!("{}{detail}", error.title());
    at(
        origin,
        text,
        label.map(|label| label.span().start()),
        &message,
        false,
    )
}

fn at(origin: &str, text: &[u8], offset: Option<usize>, message: &str, warning: bool) -> Problem {
    let before = offset.and_then(|offset| text.get(..offset));
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let line = before.map_or(0, |before| count(before.split(|byte| *byte == b'\n').count()));
    let column = before.map_or(0, |before| {
        let last = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        count(String::from_utf8_lossy(last).chars().count() + 1)
    });
    Problem {
        file: origin.to_owned(),
        line,
        column,
        message: message.to_owned(),
        warning,
    }
}

/// Compiled rules become machine code of ours, so they are read only from a file
/// that nobody but us can have written.
fn read_cached(path: &Path) -> Option<Rules> {
    let file = File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    if !ours || !metadata.is_file() {
        return None;
    }
    Rules::deserialize_from(io::BufReader::new(file)).ok()
}

/// Keeps compiled rules and drops those of before.
fn keep(rules: &Rules, path: &Path) -> Result<()> {
    let folder = path.parent().context("no folder")?;
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("rules-") {
            fs::remove_file(entry.path())?;
        }
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&rules.serialize()?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const GOOD: &str = "rule good { strings: $a = \"marker\" condition: $a }";

    #[test]
    fn one_bad_file_does_not_refuse_the_rest() {
        let folder = folder(&[
            ("a.yar", GOOD),
            ("b.yar", "rule bad {\n  condition: nothing_known }"),
            ("c.txt", "!"),
        ]);
        let loaded = load(&[folder.path().to_owned()], None).unwrap();
        assert_eq!(loaded.rules.iter().len(), 1);
        let problem = loaded.problems.first().unwrap();
        assert!(problem.file.ends_with("b.yar"), "{problem:?}");
        assert_eq!(
            (problem.line, problem.column, problem.warning),
            (2, 14, false),
            "{problem:?}"
        );
    }

    #[test]
    fn the_same_name_twice_is_no_conflict() {
        let folder = folder(&[("a.yar", GOOD), ("b.yara", GOOD)]);
        let loaded = load(&[folder.path().to_owned()], None).unwrap();
        assert_eq!((loaded.rules.iter().len(), loaded.problems.len()), (2, 0));
    }

    #[test]
    fn compiled_rules_are_kept_and_replaced() {
        let (rules, cache) = (folder(&[("a.yar", GOOD)]), tempfile::tempdir().unwrap());
        let kept = || fs::read_dir(cache.path()).unwrap().count();
        let load = || load(&[rules.path().to_owned()], Some(cache.path())).unwrap();
        let first = load();
        assert_eq!(kept(), 1);
        assert_eq!(load().version, first.version);
        fs::write(rules.path().join("b.yar"), GOOD).unwrap();
        let second = load();
        assert_ne!(second.version, first.version);
        assert_eq!((second.rules.iter().len(), kept()), (2, 1));
    }

    #[test]
    fn files_of_the_folders_may_be_included() {
        let folder = folder(&[
            (
                "base.yar",
                "private rule base { strings: $a = \"base\" condition: $a }",
            ),
            (
                "index.yar",
                "/* an index */\ninclude \"./base.yar\"\ninclude \"user.yar\"\n",
            ),
            ("user.yar", "include \"base.yar\"\nrule user { condition: base }"),
        ]);
        let loaded = load(&[folder.path().to_owned()], None).unwrap();
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let mut scanner = yara_x::Scanner::new(&loaded.rules);
        let results = scanner.scan(b"base").unwrap();
        let names: Vec<_> = results
            .matching_rules()
            .map(|rule| rule.identifier().to_owned())
            .collect();
        assert_eq!(names, ["user"]);
    }

    #[test]
    fn no_folder_means_no_rules_and_a_file_cannot_name_another() {
        assert_eq!(
            load(&["/nonexistent".into()], None).unwrap().rules.iter().len(),
            0
        );
        let folder = folder(&[("a.yar", "include \"/etc/passwd\"\n")]);
        assert_eq!(load(&[folder.path().to_owned()], None).unwrap().problems.len(), 1);
    }
}
