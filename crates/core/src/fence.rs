//! A fence around code that may panic: its panic becomes a value, and prints nothing.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static FENCED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`; a panic inside it is returned as its message. The default hook, which prints to stderr, stays silent on
/// this thread meanwhile: the caller reports the panic as an error of its own.
///
/// # Errors
/// The panic's message.
pub fn fenced<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = take_hook();
        set_hook(Box::new(move |info| {
            if !FENCED.get() {
                default(info);
            }
        }));
    });
    let outer = FENCED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    FENCED.set(outer);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(fenced(|| 3), Ok(3));
        assert_eq!(fenced(|| panic!("row {}", 7)).map(|()| 0), Err("row 7".into()));
        assert_eq!(fenced(|| panic!("plain")).map(|()| 0), Err("plain".into()));
        assert_eq!(fenced(|| fenced(|| panic!("inner"))).map(|r: Result<(), _>| r), Ok(Err("inner".into())));
    }
}
