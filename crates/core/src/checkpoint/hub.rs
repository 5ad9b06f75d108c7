//! Where a checkpoint lies: a directory, or a repository that is already in the local Hugging Face cache. Nothing is
//! fetched. Layout: <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>

use super::file::read_small;
use crate::error::{PrismError, Result};
use std::path::{Path, PathBuf};

/// The directory that a path or a repository id (`owner/name`, or an old `name` alone) means.
///
/// # Errors
/// `IO_ERROR` where there is neither.
pub fn locate(path: &str) -> Result<PathBuf> {
    locate_in(path, cache().as_deref())
}

fn locate_in(path: &str, cache: Option<&Path>) -> Result<PathBuf> {
    if Path::new(path).exists() {
        return Ok(path.into());
    }
    let missing = |reason: String| PrismError::Io { path: path.into(), operation: "find", reason };
    let (Some(cache), true) = (cache, is_repository_id(path)) else {
        return Err(missing("there is no such directory".into()));
    };
    let repository = cache.join(format!("models--{}", path.replace('/', "--")));
    if !repository.is_dir() {
        let reason = format!("there is no such directory, and no such repository in the cache {}", cache.display());
        return Err(missing(reason));
    }
    let commit = commit(&repository).ok_or_else(|| {
        missing(format!("{} does not say which of its snapshots is meant", repository.join("refs/main").display()))
    })?;
    Ok(repository.join("snapshots").join(commit))
}

/// `owner/name` or `name`, of the characters that the hub allows; nothing that could lead elsewhere.
fn is_repository_id(text: &str) -> bool {
    let part = |part: &str| {
        let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        !part.is_empty() && part.len() <= 96 && plain && !part.starts_with('.') && !part.contains("..")
    };
    text.split('/').count() <= 2 && text.split('/').all(part)
}

/// The commit that `main` points to, or the only snapshot that there is.
fn commit(repository: &Path) -> Option<String> {
    let too_large = |found| PrismError::argument("refs/main", found, "a commit");
    if let Ok(bytes) = read_small(&repository.join("refs/main"), 1024, too_large) {
        let commit = String::from_utf8(bytes).ok()?.trim().to_string();
        return (!commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(commit);
    }
    let mut snapshots = std::fs::read_dir(repository.join("snapshots")).ok()?.flatten();
    let only = snapshots.next()?.file_name().into_string().ok()?;
    snapshots.next().is_none().then_some(only)
}

/// The cache's folder, as huggingface_hub finds it.
fn cache() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").map(|home| home.join(".cache"));
    variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).or_else(|| {
        let base = variable("HF_HOME");
        let base = base.or_else(|| variable("XDG_CACHE_HOME").or_else(home).map(|cache| cache.join("huggingface")));
        base.map(|base| base.join("hub"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_repositories_and_nothing_else() {
        for id in ["gpt2", "openai-community/gpt2", "Qwen/Qwen2.5-0.5B", "a/b_c.d-e"] {
            assert!(is_repository_id(id), "{id}");
        }
        for path in ["", "/", "a/b/c", "../x", "a/..", "./gpt2", "a//b", "a b", "~/gpt2", "a\\b", ".hidden/x"] {
            assert!(!is_repository_id(path), "{path}");
        }
    }

    #[test]
    fn a_snapshot_is_found_by_its_reference() {
        let cache = std::env::temp_dir().join(format!("logit-prism-hub-{}", std::process::id()));
        let repository = cache.join("models--owner--name");
        let (old, new) = ("0".repeat(40), "1".repeat(40));
        std::fs::create_dir_all(repository.join("snapshots").join(&old)).unwrap();
        let find = |id: &str| locate_in(id, Some(&cache));
        let code = |id: &str| find(id).unwrap_err().code();
        assert_eq!(find("owner/name").unwrap(), repository.join("snapshots").join(&old)); // the only one
        std::fs::create_dir_all(repository.join("snapshots").join(&new)).unwrap();
        assert_eq!(code("owner/name"), "IO_ERROR"); // which of the two?
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::write(repository.join("refs/main"), format!("{new}\n")).unwrap();
        assert_eq!(find("owner/name").unwrap(), repository.join("snapshots").join(&new));
        std::fs::write(repository.join("refs/main"), "../../elsewhere").unwrap();
        assert_eq!(code("owner/name"), "IO_ERROR");
        assert_eq!(code("owner/other"), "IO_ERROR");
        let elsewhere = find("a/b/c").unwrap_err(); // no id: the cache is not asked
        assert_eq!(elsewhere.details()["reason"], "there is no such directory");
        if cfg!(target_os = "linux") {
            assert_eq!(code("Owner/name"), "IO_ERROR"); // folders are named as the repository was asked for
        }
        assert_eq!(locate_in("owner/name", None).unwrap_err().code(), "IO_ERROR");
        let here = std::env::temp_dir().display().to_string();
        assert_eq!(find(&here).unwrap(), PathBuf::from(&here)); // a directory is itself
        std::fs::remove_dir_all(cache).unwrap();
    }
}
