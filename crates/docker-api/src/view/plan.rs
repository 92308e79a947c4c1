//! What a change would lead to (`POST /swarmd/plan`): nothing changes.

use serde::{Deserialize, Serialize};
use swarm_model::ServiceSpec;

use super::{RejectionView, Version, is_default};

/// A change to plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "Kind", rename_all = "lowercase", rename_all_fields = "PascalCase")]
pub enum PlanRequest {
    /// A new service.
    Create {
        /// What it is to be.
        spec: Box<ServiceSpec>,
    },
    /// A new spec of a service.
    Update {
        /// Id, name or start of an id.
        service: String,
        /// What it is to be.
        spec: Box<ServiceSpec>,
    },
    /// Another number of replicas.
    Scale {
        /// Id, name or start of an id.
        service: String,
        /// How many.
        replicas: u64,
    },
    /// Back to an earlier spec.
    Rollback {
        /// Id, name or start of an id.
        service: String,
        /// Number of the revision; absent for the previous spec.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u64>,
    },
    /// A node is drained.
    Drain {
        /// Id, host name or start of an id.
        node: String,
        /// Whatever the policies of its services say, as by Docker's clients.
        #[serde(default, skip_serializing_if = "is_default")]
        now: bool,
    },
}

/// What a change would lead to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlanView {
    /// The service or node that would be changed, by name.
    pub subject: String,
    /// The newest version of all services and nodes, on which the plan rests.
    pub version: Version,
    /// Whether anything would change.
    pub changes: bool,
    /// Whether all tasks would find a node, none that is to leave its node would stay there, and no update would be
    /// rolled back.
    pub fits: bool,
    /// What would happen, in order.
    pub waves: Vec<WaveView>,
    /// Whether there is more than is told.
    #[serde(skip_serializing_if = "is_default")]
    pub cut: bool,
    /// Nanoseconds from now until all is done, if starting and stopping took no time.
    #[serde(rename = "EndsAfter")]
    pub ends_after_ns: i64,
    /// The state of the service's update in the end, if it has one.
    #[serde(skip_serializing_if = "is_default")]
    pub update_state: String,
    /// Whether it does not end as things are: what is to come waits for room.
    #[serde(skip_serializing_if = "is_default")]
    pub stuck: bool,
    /// How the service's update would be rolled back, if it would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBackView>,
    /// Tasks that would find no node in the end.
    pub waiting: Vec<WaitingView>,
    /// Tasks that would run on although the change wants them gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub staying: Vec<StayingView>,
    /// What would keep nodes from taking the first task that finds none, before a rollback or in the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejections: Vec<RejectionView>,
    /// What would help.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<String>,
}

/// What happens at once. The next wave comes when its tasks run or have stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaveView {
    /// Nanoseconds from now, at the earliest.
    #[serde(rename = "After")]
    pub after_ns: i64,
    /// What happens.
    pub steps: Vec<StepView>,
}

/// What happens to one task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StepView {
    /// `start`, `prepare`, `replace`, `move`, `stop`, `wait` or `drop`.
    pub action: String,
    /// `service.slot`, or `service.node` of a global service.
    pub task: String,
    /// Name of the node where a task stops.
    #[serde(skip_serializing_if = "is_default")]
    pub from: String,
    /// Name of the node where a task starts.
    #[serde(skip_serializing_if = "is_default")]
    pub to: String,
    /// Why a task waits for a node.
    #[serde(skip_serializing_if = "is_default")]
    pub reason: String,
}

/// How an update comes to its rollback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RolledBackView {
    /// Due to what.
    pub reason: String,
    /// Tasks that would have no node until then.
    pub waiting: Vec<WaitingView>,
}

/// A task that finds no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaitingView {
    /// `service.slot`, or `service.node` of a global service.
    pub task: String,
    /// Why.
    pub reason: String,
}

/// A task that runs on although it is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StayingView {
    /// `service.slot`, or `service.node` of a global service.
    pub task: String,
    /// Name of its node.
    pub node: String,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::read_json;

    #[test]
    fn requests_are_read_as_they_are_written() {
        let scale = json!({"Kind": "scale", "Service": "web", "Replicas": 3});
        assert_eq!(
            read_json::<PlanRequest>(scale.to_string().as_bytes()),
            Ok(PlanRequest::Scale { service: "web".into(), replicas: 3 })
        );
        let update = json!({"Kind": "update", "Service": "web", "Spec": {"Name": "web", "Future": [1.5],
            "UpdateConfig": {"MaxFailureRatio": 0.25, "Parallelism": 2}}});
        let request: PlanRequest = read_json(update.to_string().as_bytes()).expect("valid");
        let PlanRequest::Update { spec, .. } = &request else { panic!("{request:?}") };
        assert_eq!(spec.update_config.as_ref().map(|c| c.max_failure_ratio), Some(0.25));
        assert_eq!(spec.extra.get("Future"), Some(&json!([1.5])));
        let again = serde_json::to_vec(&request).expect("JSON");
        assert_eq!(read_json::<PlanRequest>(&again), Ok(request));
        for wrong in [json!({"Kind": "explode"}), json!({"Service": "web"}), json!({"Kind": "drain"}), json!(1)] {
            assert!(read_json::<PlanRequest>(wrong.to_string().as_bytes()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(
            kind in "create|update|scale|rollback|drain|x", field in "Service|Spec|Replicas|To|Node",
            value in "null|-1|3|\"web\"|\\{\\}|\\{\"Mode\":[12]\\}|\\[\\]|\\PC{0,6}"
        ) {
            let text = format!("{{\"Kind\":\"{kind}\",\"Service\":\"web\",\"{field}\":{value}}}");
            let _ = read_json::<PlanRequest>(text.as_bytes());
        }
    }
}
