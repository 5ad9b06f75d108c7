//! One file of a checkpoint: opened once, read by position into owned memory, and checked not to change meanwhile.
//! Never mapped: a mapping of a file that somebody truncates kills the process.

use super::header::Dtype;
use crate::error::{PrismError, Result};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How much is read at a time while converting.
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

/// Length, inode and modification time of a file.
#[derive(Debug, PartialEq)]
struct Identity(u64, u64, i64, i64);

fn identity(meta: &std::fs::Metadata) -> Identity {
    Identity(meta.len(), meta.ino(), meta.mtime(), meta.mtime_nsec())
}

impl StoredFile {
    /// Opens a regular file of the directory.
    ///
    /// # Errors
    /// `CHECKPOINT_INVALID` where it is no regular file or a link that leaves the repository, `IO_ERROR`.
    pub fn open(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(name);
        check_regular(&path)?;
        let file = File::open(&path).map_err(PrismError::io(&path, "open"))?;
        let meta = file.metadata().map_err(PrismError::io(&path, "look at"))?;
        Ok(StoredFile { name: name.into(), length: meta.len(), identity: identity(&meta), path, file })
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

    /// The numbers of a range as f32; one block beside the result is all the memory it takes.
    ///
    /// # Errors
    /// `IO_ERROR`.
    pub fn read_f32(&self, range: Range<u64>, dtype: Dtype) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(((range.end - range.start) / dtype.size() as u64) as usize);
        self.blocks(range, |block| dtype.extend_f32(block, &mut values))?;
        Ok(values)
    }

    /// That length, inode and time are what they were.
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
    check_regular(path)?;
    let file = File::open(path).map_err(PrismError::io(path, "open"))?;
    let mut bytes = Vec::new();
    // one byte more than allowed is enough to know, whatever length the file claims
    let limited = std::io::Read::take(&file, max + 1);
    std::io::copy(&mut { limited }, &mut bytes).map_err(PrismError::io(path, "read"))?;
    if bytes.len() as u64 > max { Err(too_large(format!("larger than {max} bytes"))) } else { Ok(bytes) }
}

/// A regular file (opening a pipe would wait for ever), and no link out of the repository: the only links allowed lead
/// into the `blobs` folder of the same Hugging Face cache entry, `<repo>/snapshots/<commit>/name → <repo>/blobs/…`.
fn check_regular(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(missing(path)),
        Err(e) => return Err(PrismError::io(path, "look at")(e)),
    };
    if !meta.is_symlink() {
        return if meta.is_file() { Ok(()) } else { Err(invalid(path, "not a regular file", "a regular file")) };
    }
    let target = path.canonicalize().map_err(PrismError::io(path, "follow the link"))?;
    let blobs = dir.canonicalize().ok().and_then(|d| Some(d.parent()?.parent()?.join("blobs")));
    if blobs.as_deref() == target.parent() && target.is_file() {
        return Ok(());
    }
    Err(invalid(path, format!("a link to {}", target.display()), "a file, or a link into the same repository's blobs"))
}

fn missing(path: &Path) -> PrismError {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let dir = path.parent().unwrap_or(path);
    PrismError::CheckpointMissing { path: dir.display().to_string(), missing: name }
}
