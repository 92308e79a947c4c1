//! The endpoints of a service that can be chosen: a value that is cheap to copy and to change, so that a change of one
//! endpoint does not cost what the service has.

use imbl::{OrdMap, Vector};
use swarm_model::TaskId;

use super::Candidate;

/// Candidates that are asked how often they were chosen. Those of a service were chosen about equally often.
const ASKED_MAX: usize = 8;

/// Candidates in no order of their own, each with a place that can be drawn.
#[derive(Clone, Default)]
pub(crate) struct Candidates {
    all: Vector<Candidate>,
    places: OrdMap<TaskId, usize>,
}

impl Candidates {
    /// Adds a candidate, or replaces the one of the same task.
    pub(crate) fn put(&mut self, candidate: Candidate) {
        let task = candidate.endpoint.task;
        match self.places.get(&task).and_then(|place| self.all.get_mut(*place)) {
            Some(known) => *known = candidate,
            None => {
                self.places.insert(task, self.all.len());
                self.all.push_back(candidate);
            }
        }
    }

    /// Removes the candidate of a task. The last one gets its place.
    pub(crate) fn remove(&mut self, task: TaskId) {
        let Some(place) = self.places.remove(&task) else { return };
        let Some(last) = self.all.pop_back() else { return };
        if let Some(gap) = self.all.get_mut(place) {
            self.places.insert(last.endpoint.task, place);
            *gap = last;
        }
    }

    /// The number of candidates.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The candidate at a place.
    pub(crate) fn get(&self, place: usize) -> Option<&Candidate> {
        self.all.get(place)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.all.iter()
    }

    /// How often a candidate was chosen so far, at the most; of some of them.
    pub(crate) fn turns(&self) -> u64 {
        self.iter().take(ASKED_MAX).map(|candidate| candidate.endpoint.turns()).max().unwrap_or(0)
    }
}
