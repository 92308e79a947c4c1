//! Small values for this crate's unit tests.

use swarm_model::{DesiredState, Labels, ServiceId, TaskId, TaskSpec};
use swarm_wire::agent::{AssignedSpec, AssignedTask};

pub(crate) fn assigned_task(id: u128, desired: DesiredState) -> AssignedTask {
    AssignedTask {
        id: TaskId(id),
        service: ServiceId(1),
        spec_version: 1,
        slot: Some(1),
        desired,
        generic_resources: Default::default(),
        needs: Default::default(),
        addrs: Default::default(),
    }
}

pub(crate) fn assigned_spec(image: &str) -> AssignedSpec {
    let mut task = TaskSpec::default();
    task.container_spec.image = image.into();
    AssignedSpec {
        service: ServiceId(1),
        version: 1,
        service_name: "web".into(),
        service_labels: Labels::new(),
        task,
        ports: Vec::new(),
        registry_auth: None,
    }
}
