//! The header of a safetensors file: what the format allows is read, and every rule that is broken is refused by name.

mod common;

use common::*;
use logit_prism_core::Result;
use logit_prism_core::checkpoint::{Header, StoredFile};

fn read(dir: &TempDir) -> Result<Header> {
    Header::read(&StoredFile::open(&dir.0, "model.safetensors")?)
}

/// Reads a file of this header and this many bytes of data.
fn header_of(json: impl AsRef<[u8]>, data: usize) -> Result<Header> {
    let dir = TempDir::new();
    write_raw(&dir.join("model.safetensors"), json.as_ref(), &vec![0; data]);
    read(&dir)
}

/// That the header is refused because of what `found` says.
#[track_caller]
fn refused(json: impl AsRef<[u8]>, data: usize, found: &str) {
    check_refusal(header_of(json, data), found);
}

#[track_caller]
fn check_refusal(outcome: Result<Header>, found: &str) {
    let error = error(outcome);
    assert_eq!(error.code(), "CHECKPOINT_INVALID", "{error}");
    let details = error.details();
    assert!(details["found"].as_str().unwrap().contains(found), "expected {found:?} in {details}");
    assert!(details["file"].as_str().unwrap().ends_with("model.safetensors"), "{details}");
}

fn entry(dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#"{{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [{start}, {end}]}}"#)
}

fn one(dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#"{{"t": {}}}"#, entry(dtype, shape, start, end))
}

#[test]
fn a_good_header_says_where_tensors_lie() {
    let json = format!(
        r#"{{"__metadata__": {{"format": "pt"}}, "b": {}, "a": {}, "empty": {}, "scalar": {}}}  "#,
        entry("F16", "[2, 3]", 0, 12),
        entry("I64", "[1]", 12, 20),
        entry("F32", "[0, 7]", 20, 20),
        entry("BOOL", "[]", 20, 21),
    );
    let header = header_of(&json, 21).unwrap();
    let data = 8 + json.len() as u64;
    let found: Vec<_> = header
        .tensors
        .iter()
        .map(|(name, t)| (name.as_str(), t.dtype.as_str(), t.shape.clone(), t.range.start - data..t.range.end - data))
        .collect();
    assert_eq!(found[0], ("a", "I64", vec![1], 12..20));
    assert_eq!(found[1], ("b", "F16", vec![2, 3], 0..12));
    assert_eq!(found[2], ("empty", "F32", vec![0, 7], 20..20));
    assert_eq!(found[3], ("scalar", "BOOL", vec![], 20..21));
    assert_eq!(found.len(), 4);
    assert!(header_of("{}", 0).unwrap().tensors.is_empty());
}

#[test]
fn files_shorter_than_their_header_are_refused() {
    let dir = TempDir::new();
    for bytes in [&b""[..], b"\0\0\0\0\0\0\0"] {
        dir.write("model.safetensors", bytes);
        check_refusal(read(&dir), &format!("{} bytes", bytes.len()));
    }
    for (length, rest) in [(1u64, ""), (3, "{}"), (u64::MAX, "{}"), (1 << 60, "{}")] {
        dir.write("model.safetensors", [&length.to_le_bytes(), rest.as_bytes()].concat());
        check_refusal(read(&dir), &format!("a header of {length} bytes"));
    }
    dir.write("model.safetensors", 0u64.to_le_bytes());
    check_refusal(read(&dir), "not readable");
}

#[test]
fn a_header_has_at_most_16_mib() {
    let padded = |length: usize| format!("{{{}}}", " ".repeat(length - 2));
    assert!(header_of(padded(16 << 20), 0).unwrap().tensors.is_empty());
    refused(padded((16 << 20) + 1), 0, "a header of 16777217 bytes");
}

#[test]
fn what_is_not_an_object_of_tensors_is_refused() {
    let good = entry("F32", "[1]", 0, 4);
    for json in [
        "",
        " ",
        "[]",
        "null",
        "7",
        "{",
        r#"{"t": }"#,
        "\u{feff}{}",
        r#"{"t": 1}"#,
        r#"{"t": {"dtype": "F32", "shape": [1]}}"#,
        r#"{"t": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#,
        r#"{"t": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}"#,
        r#"{"t": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}"#,
        r#"{"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}"#,
        r#"{"t": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}"#,
        r#"{"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 18446744073709551616]}}"#,
        r#"{"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "extra": 1}}"#,
        r#"{"t": {"dtype": "F32", "dtype": "F16", "shape": [1], "data_offsets": [0, 4]}}"#,
        &format!(r#"{{"t": {good}, "t": {good}}}"#),
        &format!(r#"{{"t": {good}}} {{}}"#),
        &format!(r#"{{"t": {}"#, "[".repeat(100_000)),
        r#"{"__metadata__": {"n": 1}}"#,
        r#"{"__metadata__": {"n": null}}"#,
        r#"{"__metadata__": ["a"]}"#,
        r#"{"__metadata__": {}, "__metadata__": {}}"#,
    ] {
        refused(json, 4, "not readable");
    }
    refused(b"{\"\xff\": 1}", 0, "not readable");
    assert!(error(header_of(format!(r#"{{"t": {good}, "t": {good}}}"#), 4)).to_string().contains("\"t\" occurs twice"));
}

#[test]
fn metadata_is_no_tensor_and_a_tensor_is_no_metadata() {
    refused(format!(r#"{{"__metadata__": {}}}"#, entry("F32", "[1]", 0, 4)), 4, "the entry \"__metadata__\"");
    refused(r#"{"t": {"a": "b"}}"#, 0, "the entry \"t\"");
    refused(r#"{"t": {}}"#, 0, "the entry \"t\"");
    assert!(header_of(r#"{"__metadata__": {}}"#, 0).unwrap().tensors.is_empty());
}

#[test]
fn holes_overlaps_and_leftovers_are_refused() {
    let two = |a: (u64, u64), b: (u64, u64)| {
        format!(
            r#"{{"a": {}, "b": {}}}"#,
            entry("U8", &format!("[{}]", a.1 - a.0), a.0, a.1),
            entry("U8", &format!("[{}]", b.1 - b.0), b.0, b.1)
        )
    };
    assert_eq!(header_of(two((4, 10), (0, 4)), 10).unwrap().tensors.len(), 2); // any order of the names
    refused(two((0, 4), (5, 10)), 10, "tensor b begins at");
    refused(two((0, 4), (3, 10)), 10, "tensor b begins at");
    refused(two((0, 4), (0, 4)), 4, "tensor b begins at");
    refused(two((1, 4), (4, 10)), 10, "tensor a begins at");
    refused(two((0, 4), (4, 10)), 11, "the tensors end at"); // a byte behind the last
    refused(two((0, 4), (4, 10)), 9, "the tensors end at"); // truncated
    refused("{}", 1, "the tensors end at");
}

#[test]
fn names_are_short_and_printable() {
    let named = |name: &str| format!(r#"{{"{name}": {}}}"#, entry("F32", "[1]", 0, 4));
    for good in ["a".repeat(512), "ä".repeat(256), "h.0.é ⊙".into()] {
        assert!(header_of(named(&good), 4).unwrap().tensors.contains_key(&good));
    }
    for bad in [
        "a".repeat(513),
        "ä".repeat(257),
        "".into(),
        r"a\u0007".into(),
        r"a\nb".into(),
        r"\u007f".into(),
        r"\u0000".into(),
    ] {
        refused(named(&bad), 4, "the tensor name");
    }
    let error = error(header_of(named(&"n".repeat(1_000_000)), 4));
    assert!(error.to_string().len() < 500, "long names are cut");
}

#[test]
fn there_are_at_most_65536_tensors() {
    let many = |n: usize| {
        let entries: Vec<String> = (0..n).map(|i| format!(r#""t{i}":{}"#, entry("F32", "[0]", 0, 0))).collect();
        format!("{{{}}}", entries.join(","))
    };
    assert_eq!(header_of(many(65_536), 0).unwrap().tensors.len(), 65_536);
    refused(many(65_537), 0, "65537 tensors");
}

#[test]
fn shapes_have_limits() {
    assert!(header_of(one("F32", "[1, 1, 1, 1, 1, 1, 1, 1]", 0, 4), 4).is_ok());
    refused(one("F32", "[1, 1, 1, 1, 1, 1, 1, 1, 1]", 0, 4), 4, "of shape [1, 1, 1, 1, 1, 1, 1, 1, 1]");
    assert!(header_of(one("F32", "[1099511627776, 0]", 0, 0), 0).is_ok()); // 2^40
    refused(one("F32", "[1099511627777, 0]", 0, 0), 0, "of shape [1099511627777, 0]");
    refused(one("F32", "[18446744073709551615]", 0, 0), 0, "of shape");
}

#[test]
fn products_that_overflow_are_refused() {
    let dim = 1u64 << 40;
    refused(one("F32", &format!("[{dim}, {dim}]"), 0, 0), 0, "at bytes 0..0"); // 2^80 elements: 0 when wrapped
    refused(one("U8", &format!("[{dim}, {}]", 1 << 24), 0, 0), 0, "at bytes 0..0"); // 2^64: 0 when wrapped
    refused(one("F64", &format!("[{dim}, {}]", 1 << 18), 0, 0), 0, "at bytes 0..0"); // 2^58 of 64 bits
    refused(one("F32", &format!("[{dim}]"), 0, 4 * dim), 4, "the tensors end at"); // 4 TiB, said and not there
}

#[test]
fn offsets_that_overflow_are_refused() {
    let max = u64::MAX;
    refused(one("F32", "[1]", max - 3, max), 4, "at bytes"); // start + 4 is beyond u64
    refused(one("F32", "[1]", max - 4, max), 4, "at bytes"); // start + 4 fits, behind the header it does not
    refused(one("F32", "[1]", 4, 0), 4, "at bytes 4..0");
}

#[test]
fn every_type_of_the_format_has_its_size() {
    // bytes of 8 elements, from the format's list of types
    for (dtype, bytes) in [
        ("F4", 4),
        ("F6_E2M3", 6),
        ("F6_E3M2", 6),
        ("BOOL", 8),
        ("U8", 8),
        ("I8", 8),
        ("F8_E5M2", 8),
        ("F8_E4M3", 8),
        ("F8_E8M0", 8),
        ("F8_E4M3FNUZ", 8),
        ("F8_E5M2FNUZ", 8),
        ("I16", 16),
        ("U16", 16),
        ("F16", 16),
        ("BF16", 16),
        ("I32", 32),
        ("U32", 32),
        ("F32", 32),
        ("I64", 64),
        ("U64", 64),
        ("F64", 64),
        ("C64", 64),
    ] {
        assert!(header_of(one(dtype, "[2, 4]", 0, bytes), bytes as usize).is_ok(), "{dtype}");
        for wrong in [bytes - 1, bytes + 1, 2 * bytes] {
            refused(one(dtype, "[2, 4]", 0, wrong), wrong as usize, "at bytes 0..");
        }
    }
    refused(one("F4", "[3]", 0, 1), 1, "at bytes 0..1"); // 12 bits are no whole number of bytes
    refused(one("F4", "[3]", 0, 2), 2, "at bytes 0..2");
    for unknown in ["F128", "f32", "", "FLOAT"] {
        refused(one(unknown, "[1]", 0, 4), 4, &format!("of type {unknown:?}"));
    }
}
