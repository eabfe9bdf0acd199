//! Claims: who brings in a blob at present, so that two pulls do not fetch the same one.
//!
//! A claim is waited for by a future that needs no runtime of its own: this crate knows none.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use creel_types::Digest;

use crate::store::Store;

/// The blobs that are claimed, each with those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Mutex<HashMap<Digest, Vec<Waker>>>,
}

impl Claims {
    fn held(&self) -> MutexGuard<'_, HashMap<Digest, Vec<Waker>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to bring in one blob, until it is dropped. It keeps nobody from storing that blob: those who ask for
/// claims before they fetch have agreed on it.
#[derive(Debug)]
pub struct Claim {
    store: Arc<Store>,
    digest: Digest,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let waiting = self.store.claims.held().remove(&self.digest).unwrap_or_default();
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// What [`Store::claim`] returns.
#[derive(Debug)]
pub struct Claiming {
    store: Arc<Store>,
    digest: Digest,
}

impl Future for Claiming {
    type Output = Claim;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Claim> {
        let mut held = self.store.claims.held();
        match held.get_mut(&self.digest) {
            Some(waiting) => {
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
            None => {
                held.insert(self.digest, Vec::new());
                Poll::Ready(Claim { store: self.store.clone(), digest: self.digest })
            }
        }
    }
}

impl Store {
    /// Claims a blob if nobody else has.
    pub fn try_claim(self: &Arc<Self>, digest: &Digest) -> Option<Claim> {
        let mut held = self.claims.held();
        if held.contains_key(digest) {
            return None;
        }
        held.insert(*digest, Vec::new());
        Some(Claim { store: self.clone(), digest: *digest })
    }

    /// Claims a blob as soon as whoever has claimed it lets go. Who waits must hold no other claim, and nothing that
    /// the holder of one may wait for.
    pub fn claim(self: &Arc<Self>, digest: &Digest) -> Claiming {
        Claiming { store: self.clone(), digest: *digest }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use crate::tests::{no_digest, scratch};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_claim_is_had_by_one_and_waited_for_by_others() {
        let dir = scratch();
        let store = Store::open(dir.path()).unwrap();
        let digest = no_digest();
        let first = store.try_claim(&digest).unwrap();
        assert!(store.try_claim(&digest).is_none());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let mut waiting = store.claim(&digest);
        assert!(Pin::new(&mut waiting).poll(&mut context).is_pending());
        assert!(Pin::new(&mut waiting).poll(&mut context).is_pending());
        drop(first);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        let Poll::Ready(second) = Pin::new(&mut waiting).poll(&mut context) else { panic!("it is free") };
        assert!(store.try_claim(&digest).is_none());
        drop(second);
        assert!(store.try_claim(&digest).is_some());
    }
}
