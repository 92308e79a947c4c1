//! Tests of pipes.

use super::*;
use crate::descriptors::KEPT_DESCRIPTORS;

impl Pipes {
    /// Pipes that wait to be used again.
    pub(crate) fn idle(&self) -> usize {
        self.state().idle.len()
    }
}

#[test]
fn pipes_are_used_again_and_limited() {
    let descriptors = Descriptors::new(KEPT_DESCRIPTORS + 4);
    let pipes = Pipes::new(Arc::clone(&descriptors));
    let (one, two) = (pipes.take().unwrap(), pipes.take().unwrap());
    assert!(pipes.take().is_none(), "each has two descriptors");
    pipes.give_back(one);
    assert_eq!(pipes.idle(), 1);
    let again = pipes.take().unwrap();
    assert_eq!(pipes.idle(), 0);
    drop((again, two));
    assert!(descriptors.reserve(4).is_some(), "a pipe that is dropped gives its descriptors back");
}

#[test]
fn no_more_pipes_are_kept_than_are_of_use() {
    let pipes = Pipes::new(Descriptors::new(KEPT_DESCRIPTORS + 100));
    // A user without rights may have fewer.
    let taken: Vec<_> = std::iter::from_fn(|| pipes.take()).take(KEPT_PIPES_MAX + 5).collect();
    taken.into_iter().for_each(|pipe| pipes.give_back(pipe));
    assert!(pipes.idle() <= KEPT_PIPES_MAX);
}
