//! SentencePiece's `precompiled_charsmap`: base64 of the trie's length in bytes (u32), the trie (u32 each), and what its
//! leaves point to: texts, each closed by a zero byte. The library believes the length, and walks wherever units lead.

use base64::decode;
use serde_json::Value;

/// Bytes that one character may become; the longest in Unicode's own tables has 33.
const MAX_TEXT: usize = 64;

/// Checks the lengths.
///
/// # Errors
/// What is wrong.
pub fn check(map: &Value) -> Result<(), String> {
    let bytes = map.as_str().and_then(|text| decode(text).ok()).ok_or("a charsmap that is not base64")?;
    let (length, rest) = bytes.split_first_chunk().ok_or("a charsmap of no length")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || !length.is_multiple_of(4) || length > rest.len() {
        return Err(format!("a charsmap whose trie has {length} of {} bytes", rest.len()));
    }
    match rest[length..].split(|byte| *byte == 0).map(<[u8]>::len).max() {
        Some(longest) if longest > MAX_TEXT => Err(format!("a charsmap that makes {longest} bytes of one character")),
        _ => Ok(()),
    }
}
