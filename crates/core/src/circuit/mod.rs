//! What heads do: where they look (patterns), and what their weights read and write (circuits).

pub mod detect;
pub mod pattern;
