//! What is no safetensors checkpoint: pickles, formats of other programs, adapters, pointers to files that were never
//! fetched. Each is refused by its name, with what to do.

use super::file::{StoredFile, invalid};
use super::index::{INDEX, SINGLE};
use crate::error::{PrismError, Result};
use std::path::Path;

const CONVERT: &str = "model.safetensors (transformers: from_pretrained, save_pretrained)";

/// Ends of file names, what such a file is, and what to do. Pickles are not here: they have a code of their own.
const FORMATS: [(&str, &str, &str); 8] = [
    (
        ".gguf",
        "GGUF weights",
        "the checkpoint that they were made from, or transformers: from_pretrained(…, gguf_file=…), save_pretrained",
    ),
    (".ggml", "GGML weights", "the checkpoint that they were made from"),
    (".onnx", "an ONNX graph", "the checkpoint that it was exported from"),
    (
        ".msgpack",
        "Flax weights",
        "model.safetensors (transformers 4: from_pretrained(…, from_flax=True), save_pretrained)",
    ),
    (
        ".h5",
        "TensorFlow weights",
        "model.safetensors (transformers 4: from_pretrained(…, from_tf=True), save_pretrained)",
    ),
    (".nemo", "a NeMo archive", "the checkpoint converted to the Hugging Face format"),
    (".npz", "NumPy or MLX weights", CONVERT),
    ("consolidated.safetensors", "weights under Mistral's own names", "the same model in the Hugging Face format"),
];

/// That the weights of a directory are in a format that can be read. Where nothing of any format is there, opening it
/// says what is missing.
///
/// # Errors
/// `PICKLE_REFUSED`, `CHECKPOINT_INVALID`, `CHECKPOINT_MISSING` for shards without their index.
pub fn check_format(dir: &Path) -> Result<()> {
    let has = |name: &str| std::fs::symlink_metadata(dir.join(name)).is_ok();
    if has("adapter_config.json") || has("adapter_model.safetensors") {
        let name = if has("adapter_config.json") { "adapter_config.json" } else { "adapter_model.safetensors" };
        let merge = "the model with its adapter merged in (peft: merge_and_unload, save_pretrained), or without one";
        return Err(invalid(&dir.join(name), "an adapter, which changes the weights of another model", merge));
    }
    if has(SINGLE) || has(INDEX) {
        return Ok(());
    }
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let ends = |name: &str, ends: &[&str]| ends.iter().any(|end| name.to_lowercase().ends_with(end));
    if let Some(name) = names.iter().find(|name| ends(name, &[".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"])) {
        return Err(PrismError::PickleRefused { file: dir.join(name).display().to_string() });
    }
    for (end, what, expected) in FORMATS {
        if let Some(name) = names.iter().find(|name| ends(name, &[end])) {
            return Err(invalid(&dir.join(name), what, expected));
        }
    }
    match names.iter().any(|name| ends(name, &[".safetensors"]) && name.contains("-of-")) {
        true => Err(PrismError::CheckpointMissing { path: dir.display().to_string(), missing: INDEX.into() }),
        false => Ok(()),
    }
}

/// Why a file that is called safetensors is none, where its first bytes tell.
pub(super) fn recognised(file: &StoredFile) -> Option<PrismError> {
    let mut start = [0; 64];
    let n = file.length.min(64) as usize;
    file.read_at(&mut start[..n], 0).ok()?;
    let start = &start[..n];
    let begins = |with: &[u8]| start.starts_with(with);
    // a pickle of protocol 2 or later, and torch's archive of pickles
    if (n > 1 && start[0] == 0x80 && (2..=5).contains(&start[1])) || begins(b"PK\x03\x04") {
        return Some(PrismError::PickleRefused { file: file.path().display().to_string() });
    }
    let text = start.trim_ascii_start();
    let (found, expected) = if begins(b"version https://git-lfs") {
        ("a git-LFS pointer, not the file that it stands for", "the file itself (git lfs pull)")
    } else if begins(b"GGUF") {
        ("GGUF weights", "the checkpoint that they were made from")
    } else if begins(b"\x89HDF") {
        ("an HDF5 file", CONVERT)
    } else if text.starts_with(b"<") {
        ("a page of a web site", "the file itself: the download gave something else")
    } else {
        return None;
    };
    Some(file.invalid(found, expected))
}
