//! A flag that stops a run at its next layer.

use crate::error::{PrismError, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared between who runs and who may stop it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the run to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// `ABORTED`.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(PrismError::Aborted {}) } else { Ok(()) }
    }
}
