//! What the node's admin, and within his limits the owner of a container, want done.

use lazaret_config::Drift;
use lazaret_types::{Action, Container};

/// Where the owner of a container says what is done about drift.
const DRIFT: &str = "lazaret.io/drift";

/// The policy for one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What happens when it runs a file that its image does not have.
    pub(crate) drift: Action,
}

impl Policy {
    pub(crate) fn of(container: &Container, node: &Drift) -> Self {
        let asked = container.annotations.get(DRIFT).filter(|_| node.owner_decides);
        let drift = match asked.map(String::as_str) {
            None => node.action,
            Some("allow") => Action::Allow,
            Some("alert") => Action::Alert,
            Some("deny") => Action::Deny,
            Some(other) => {
                let container = &container.id;
                tracing::warn!(%container, annotation = DRIFT, value = other, action = %node.action,
                    "not one of allow, alert, deny: the node's policy holds");
                node.action
            }
        };
        Self { drift }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lazaret_types::{ContainerId, Layers, Role};

    use super::*;

    fn drift(annotation: Option<&str>, owner_decides: bool) -> Action {
        let container = Container {
            namespace: "default".into(),
            id: ContainerId::new("web").unwrap(),
            image: None,
            pod: None,
            role: Role::Workload,
            annotations: BTreeMap::from_iter(annotation.map(|value| (DRIFT.into(), value.into()))),
            bundle: "/".into(),
            layers: Layers::default(),
            containerd: None,
        };
        let node = Drift {
            action: Action::Alert,
            owner_decides,
            ..Drift::default()
        };
        Policy::of(&container, &node).drift
    }

    #[test]
    fn the_owner_decides_where_he_may() {
        assert_eq!(drift(None, true), Action::Alert);
        assert_eq!(drift(Some("deny"), true), Action::Deny);
        assert_eq!(drift(Some("allow"), true), Action::Allow);
        assert_eq!(drift(Some("allow"), false), Action::Alert);
        assert_eq!(drift(Some("Allow!"), true), Action::Alert);
    }
}
