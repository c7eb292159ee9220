//! A value that one core owns until several share it. Alone, a look or a change costs nothing; shared, readers go side by
//! side and a change waits for them. Neighbours: `link` keeps its ports in one, `transit` its legs, and `node::worker` shares
//! both.

use std::sync::{Arc, PoisonError, RwLock};

/// Owned, or shared with others.
pub enum Shared<T> {
    /// By us alone.
    Own(T),
    /// Also by others.
    Many(Arc<RwLock<T>>),
}

impl<T: Default> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared::Own(T::default())
    }
}

impl<T: Default> Shared<T> {
    /// One more share. From now on it is shared, whoever gives his share back.
    pub fn share(&mut self) -> Arc<RwLock<T>> {
        if let Shared::Own(value) = self {
            *self = Shared::Many(Arc::new(RwLock::new(core::mem::take(value))));
        }
        match self {
            Shared::Many(shared) => shared.clone(),
            Shared::Own(_) => unreachable!("it was made shared above"),
        }
    }
}

impl<T> Shared<T> {
    /// Looks at it.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        match self {
            Shared::Own(value) => look(value),
            Shared::Many(shared) => look(&shared.read().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Changes it, once nobody looks.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        match self {
            Shared::Own(value) => change(value),
            Shared::Many(shared) => change(&mut shared.write().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}
