use std::fs;

use swarm_model::{ClusterId, NodeId};
use swarm_wire::{Ca, clock, is_wrapped, new_key_and_csr};

use super::*;
use crate::state_dir::tests::a_membership;

struct World {
    folder: tempfile::TempDir,
    ca: Ca,
}

impl World {
    /// The folder of a manager that has run once.
    fn new() -> (Self, StateDir) {
        let world = Self { folder: tempfile::tempdir().unwrap(), ca: Ca::create().unwrap() };
        let state = world.open();
        SealKey::load_or_create(&state.manager().unwrap().join(SEAL_KEY_FILE)).unwrap();
        state.save_identity(&world.identity(NodeRole::Manager)).unwrap();
        state.save_membership(&a_membership()).unwrap();
        (world, state)
    }

    fn open(&self) -> StateDir {
        StateDir::open(self.folder.path()).unwrap()
    }

    fn identity(&self, role: NodeRole) -> NodeIdentity {
        let (key, csr) = new_key_and_csr().unwrap();
        let issued = self.ca.issue(&csr, NodeId(1), role, ClusterId(2), 1 << 50, clock::now()).unwrap();
        NodeIdentity::new(issued.cert_pem, key, self.ca.cert_pem()).unwrap()
    }

    /// Whether the two key files are wrapped.
    fn wrapped(&self) -> [bool; 2] {
        ["manager/raft.key", "certificates/swarm-node.key"]
            .map(|file| is_wrapped(&fs::read(self.folder.path().join(file)).unwrap()))
    }

    /// The identity after a restart that takes this key, or none.
    fn restart(&self, state: StateDir, unlock: Option<&UnlockKey>) -> (StateDir, NodeIdentity) {
        drop(state);
        let state = self.open();
        assert_eq!(state.locked().unwrap().is_some(), unlock.is_some());
        if let Some(unlock) = unlock {
            assert!(!state.unlock(&UnlockKey::generate().unwrap()).unwrap());
            assert!(state.locked().unwrap().is_some());
            assert!(state.unlock(unlock).unwrap());
        }
        assert!(state.locked().unwrap().is_none());
        let identity = state.membership().unwrap().unwrap().1;
        (state, identity)
    }
}

#[test]
fn keys_are_wrapped_with_the_key_that_is_in_force() {
    let (world, state) = World::new();
    let [first, second] = [(); 2].map(|()| UnlockKey::generate().unwrap());
    assert!(!state.set_lock(None).unwrap());
    assert!(state.set_lock(Some(&first)).unwrap() && !state.set_lock(Some(&first)).unwrap());
    assert_eq!(world.wrapped(), [true; 2]);
    let (state, before) = world.restart(state, Some(&first));
    assert!(state.set_lock(Some(&second)).unwrap());
    let (state, after) = world.restart(state, Some(&second));
    assert_eq!(after.key_pem(), before.key_pem());
    // A renewed certificate's key is wrapped as well; that of a worker is not.
    let renewed = world.identity(NodeRole::Manager);
    state.save_identity(&renewed).unwrap();
    assert_eq!(world.wrapped(), [true; 2]);
    let (state, after) = world.restart(state, Some(&second));
    assert_eq!(after.key_pem(), renewed.key_pem());
    assert!(state.set_lock(None).unwrap());
    assert_eq!(world.wrapped(), [false; 2]);
    let (state, after) = world.restart(state, None);
    assert_eq!(after.key_pem(), renewed.key_pem());
    state.set_lock(Some(&first)).unwrap();
    state.save_identity(&world.identity(NodeRole::Worker)).unwrap();
    let (state, _) = world.restart(state, None);
    state.forget_manager().unwrap();
    assert!(state.seal_key().is_none());
}

#[test]
fn a_crash_between_the_two_files_leaves_keys_that_open() {
    let (world, state) = World::new();
    let unlock = UnlockKey::generate().unwrap();
    // Switching on, cut off after the first file.
    let seal = SealKey::load_or_create(&state.seal_key_file()).unwrap();
    state.rewrite_identity(&seal, true).unwrap();
    assert_eq!(world.wrapped(), [false, true]);
    let (state, _) = world.restart(state, None);
    assert!(state.set_lock(Some(&unlock)).unwrap());
    let (state, _) = world.restart(state, Some(&unlock));
    // Switching off, cut off after the first file: it is done again when the manager has started.
    seal.write(&state.seal_key_file(), None).unwrap();
    assert_eq!(world.wrapped(), [false, true]);
    let (state, identity) = world.restart(state, None);
    state.save_identity(&identity).unwrap();
    assert_eq!(world.wrapped(), [false; 2]);
}
