//! The last good copies of customer files: read at the start, saved after it and after each reload.

use crate::config::{self, Configuration, LastGoodCopies, Problems, Unsaved};
use crate::report::Logger;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;

/// The copies on disk, and what could not be saved yet.
#[derive(Clone, Debug)]
pub struct SavedCopies {
    state: Arc<Mutex<(LastGoodCopies, Unsaved)>>,
    error: Option<String>,
}

impl SavedCopies {
    /// Those that an earlier daemon left in the store's folder.
    pub fn read(folder: &Path) -> SavedCopies {
        let (copies, error) = LastGoodCopies::read(folder);
        SavedCopies { state: Arc::new(Mutex::new((copies, Unsaved::default()))), error }
    }

    /// Why there are none, though there may have been some.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Loads the configuration at the start.
    ///
    /// # Errors
    /// As [`config::load`].
    pub fn load(&self, path: &Path) -> Result<Configuration, Problems> {
        config::load_with_copies(path, &self.state.lock().0)
    }

    /// Saves what is new. A failure is logged, and tried again at the next reload.
    pub async fn save(&self, new: Unsaved, log: &Logger) {
        let state = self.state.clone();
        let save = move || {
            let (copies, unsaved) = &mut *state.lock();
            *unsaved = new.after(std::mem::take(unsaved));
            copies.save(unsaved).map(|()| *unsaved = Unsaved::default())
        };
        match tokio::task::spawn_blocking(save).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log.error(error),
            Err(panic) => log.error(format_args!("the last good copies of customer files were not saved: {panic}")),
        }
    }
}
