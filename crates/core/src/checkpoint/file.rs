//! One file of a checkpoint: opened once, read by position into owned memory, and checked not to change meanwhile.
//! Never mapped: a mapping of a file that somebody truncates kills the process.

use crate::error::{PrismError, Result};
use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How much is read at a time while hashing.
const BLOCK: usize = 1 << 20;

/// An open file and what it looked like when it was opened.
#[derive(Debug)]
pub struct StoredFile {
    /// Its name in the directory.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    path: PathBuf,
    file: File,
    identity: Identity,
}

/// Length and modification time of a file. It stays the same inode for as long as it is open, whatever happens to its
/// name.
#[derive(Debug, PartialEq)]
struct Identity(u64, i64, i64);

fn identity(meta: &Metadata) -> Identity {
    Identity(meta.len(), meta.mtime(), meta.mtime_nsec())
}

impl StoredFile {
    /// Opens a regular file of the directory.
    ///
    /// # Errors
    /// `CHECKPOINT_INVALID` where it is no regular file or a link that leaves the repository, `IO_ERROR`.
    pub fn open(dir: &Path, name: &str) -> Result<Self> {
        Self::open_path(dir.join(name), name)
    }

    fn open_path(path: PathBuf, name: &str) -> Result<Self> {
        let (file, meta) = open_regular(&path)?;
        Ok(StoredFile { name: name.into(), length: meta.len(), identity: identity(&meta), path, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `IO_ERROR`, also where the file ends early; `CHECKPOINT_INVALID` where it was cut short since it was opened.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).or_else(|e| {
            self.check_unchanged()?;
            Err(PrismError::io(&self.path, "read")(e))
        })
    }

    /// Hands the bytes of a range to `each`, a block of at most 1 MiB at a time.
    ///
    /// # Errors
    /// `IO_ERROR`.
    pub fn blocks(&self, range: Range<u64>, mut each: impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = vec![0; BLOCK.min((range.end - range.start) as usize)];
        let mut offset = range.start;
        while offset < range.end {
            let n = (range.end - offset).min(BLOCK as u64) as usize;
            self.read_at(&mut buffer[..n], offset)?;
            each(&buffer[..n]);
            offset += n as u64;
        }
        Ok(())
    }

    /// That length and time are what they were.
    ///
    /// # Errors
    /// `CHECKPOINT_INVALID`, `IO_ERROR`.
    pub fn check_unchanged(&self) -> Result<()> {
        let meta = self.file.metadata().map_err(PrismError::io(&self.path, "look at"))?;
        if identity(&meta) == self.identity {
            return Ok(());
        }
        Err(self.invalid("changed while it was read", "a file that nobody writes to meanwhile"))
    }

    /// The error for a file that breaks a rule.
    pub fn invalid(&self, found: impl Into<String>, expected: impl Into<String>) -> PrismError {
        invalid(&self.path, found, expected)
    }
}

/// The error for a file that breaks a rule.
pub(super) fn invalid(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> PrismError {
    let file = path.display().to_string();
    PrismError::CheckpointInvalid { file, found: found.into(), expected: expected.into() }
}

/// Reads a whole file of at most `max` bytes; `too_large` makes the error from a description of what was found.
///
/// # Errors
/// `CHECKPOINT_MISSING`, `CHECKPOINT_INVALID`, `IO_ERROR`, and `too_large`'s.
pub fn read_small(path: &Path, max: u64, too_large: impl FnOnce(String) -> PrismError) -> Result<Vec<u8>> {
    let file = StoredFile::open_path(path.into(), "")?;
    if file.length > max {
        return Err(too_large(format!("larger than {max} bytes")));
    }
    let mut bytes = vec![0; file.length as usize];
    file.read_at(&mut bytes, 0)?;
    file.check_unchanged()?;
    Ok(bytes)
}

/// Opens a regular file that is no link out of the repository: the only links allowed lead into the `blobs` folder of
/// the same Hugging Face cache entry, `<repo>/snapshots/<commit>/name → <repo>/blobs/…`.
///
/// Opening a pipe would wait for ever, so what is there is looked at first; and because it may be another thing by the
/// time it is opened, it is opened without waiting and without following links, and looked at again.
fn open_regular(path: &Path) -> Result<(File, Metadata)> {
    let look = |path: &Path| match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Err(missing(path)),
        found => found.map_err(PrismError::io(path, "look at")),
    };
    let no_file = || invalid(path, "not a regular file", "a regular file");
    let mut target = path.to_path_buf();
    if look(path)?.is_symlink() {
        target = path.canonicalize().map_err(PrismError::io(path, "follow the link"))?;
        let dir = path.parent().unwrap_or(Path::new(".")).canonicalize().ok();
        let blobs = dir.as_deref().and_then(|dir| Some(dir.parent()?.parent()?.join("blobs")));
        if blobs.as_deref() != target.parent() || !look(&target)?.is_file() {
            let found = format!("a link to {}", target.display());
            return Err(invalid(path, found, "a file, or a link into the same repository's blobs"));
        }
    }
    let before = look(&target)?;
    if !before.is_file() {
        return Err(no_file());
    }
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(&target);
    let file = match open {
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return Err(no_file()),
        opened => opened.map_err(PrismError::io(path, "open"))?,
    };
    let meta = file.metadata().map_err(PrismError::io(path, "look at"))?;
    if !meta.is_file() {
        return Err(no_file());
    }
    Ok((file, meta))
}

fn missing(path: &Path) -> PrismError {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let dir = path.parent().unwrap_or(path);
    PrismError::CheckpointMissing { path: dir.display().to_string(), missing: name }
}
