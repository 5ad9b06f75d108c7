//! Errors of the core as JavaScript errors with `code` and `details`.

use logit_prism_core::{CODES, PrismError};
use napi::bindgen_prelude::*;
use napi_derive::napi;

/// Every code that an error can carry.
#[napi]
pub fn error_codes() -> Vec<&'static str> {
    CODES.to_vec()
}

/// Of `known`, the names nearest to `name`, best first.
#[napi]
pub fn nearest(name: String, known: Vec<String>) -> Vec<String> {
    logit_prism_core::suggest::nearest(&name, known)
}

/// A JavaScript `Error` with the core's code and, as JSON, its fields.
pub fn to_js(env: &Env, error: &PrismError) -> Error {
    let build = || -> Result<Error> {
        let mut object = env.create_error(Error::from_reason(error.to_string()))?;
        object.set_named_property("code", error.code())?;
        object.set_named_property("details", error.details().to_string())?;
        Ok(Error::from(object.to_unknown()))
    };
    build().unwrap_or_else(|failure| failure)
}
