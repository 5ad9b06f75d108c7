//! tokenizer.json files of a few words.

use super::TempDir;
use logit_prism_core::Result;
use logit_prism_core::tokenizer::Tokenizer;
use serde_json::{Value, json as object};

/// A vocabulary; ids are indices.
pub const LIST: [&str; 6] = ["<bos>", "<unk>", "<eos>", "John", "Mary", "gave"];

/// A tokenizer of whole words between blanks, with ids by their order. `change` may alter the file's JSON.
pub fn words(list: &[&str], change: impl FnOnce(&mut Value)) -> Value {
    let vocab: serde_json::Map<String, Value> =
        list.iter().enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
    let mut json = object!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    });
    change(&mut json);
    json
}

pub fn added(id: u32, content: &str) -> Value {
    object!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
              "normalized": false, "special": true })
}

/// A post-processor: these special tokens, `A` for the text.
pub fn template(parts: &[&str], ids: &[(&str, u32)]) -> Value {
    let piece = |part: &&str| match *part {
        "A" => object!({ "Sequence": { "id": "A", "type_id": 0 } }),
        special => object!({ "SpecialToken": { "id": special, "type_id": 0 } }),
    };
    let special =
        |(token, id): &(&str, u32)| (token.to_string(), object!({ "id": token, "ids": [id], "tokens": [token] }));
    object!({
        "type": "TemplateProcessing",
        "single": parts.iter().map(piece).collect::<Vec<_>>(),
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
        "special_tokens": ids.iter().map(special).collect::<serde_json::Map<_, _>>(),
    })
}

pub fn read_with(json: &[u8], bos: Option<u32>, custom: bool, config: Option<&str>) -> Result<Tokenizer> {
    let dir = TempDir::new();
    dir.write("tokenizer.json", json);
    if let Some(config) = config {
        dir.write("tokenizer_config.json", config);
    }
    Ok(Tokenizer::load(&dir.0, bos, custom)?.unwrap())
}

pub fn read(json: &Value) -> Result<Tokenizer> {
    read_with(json.to_string().as_bytes(), None, false, None)
}
