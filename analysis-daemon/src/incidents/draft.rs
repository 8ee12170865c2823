//! An incident before it is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use lazaret_types::{
    Access, Action, Container, ContainerFields, Engine, FileFields, Gap, INCIDENT_SCHEMA, Incident,
    ProcessFields, Severity,
};
use ulid::Ulid;

use super::falco;
use crate::containerd::Known;

/// What the one who noticed it knows. Begin with [`Draft::new`] and add the rest
/// by struct update.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// When it happened.
    pub(crate) time: SystemTime,
    /// The signature, or the name of what happened.
    pub(crate) rule: String,
    pub(crate) severity: Severity,
    /// One sentence for a person.
    pub(crate) output: String,
    pub(crate) tags: Vec<String>,
    /// What was done.
    pub(crate) action: Action,
    /// Who found it.
    pub(crate) engine: Option<Engine>,
    /// What the opener wanted, when it is about a file.
    pub(crate) access: Option<Access>,
    /// The set that judged; none means the current one.
    pub(crate) signature_set: Option<Arc<str>>,
    pub(crate) container: Option<Arc<Container>>,
    pub(crate) process: Option<ProcessFields>,
    pub(crate) file: Option<FileFields>,
    /// The item of the quarantine that the file is now.
    pub(crate) item: Option<Ulid>,
    pub(crate) gap: Option<Gap>,
}

impl Draft {
    /// Something that happens now, to the node until a container is given.
    pub(crate) fn new(
        rule: impl Into<String>,
        severity: Severity,
        action: Action,
        output: impl Into<String>,
    ) -> Self {
        Self {
            time: SystemTime::now(),
            rule: rule.into(),
            severity,
            output: output.into(),
            tags: Vec::new(),
            action,
            engine: None,
            access: None,
            signature_set: None,
            container: None,
            process: None,
            file: None,
            item: None,
            gap: None,
        }
    }

    /// The incident, with its place in the log and what containerd knows of the container.
    pub(super) fn finish(&self, id: Ulid, seq: u64, node: &str, known: &Known) -> Incident {
        let container = self
            .container
            .as_deref()
            .map(|container| container_fields(container, known));
        Incident {
            time: rfc3339(self.time),
            rule: self.rule.clone(),
            priority: self.severity,
            output: self.output.clone(),
            output_fields: self.output_fields(container.as_ref(), known),
            tags: self.tags.clone(),
            id,
            schema: INCIDENT_SCHEMA,
            node: node.to_owned(),
            seq,
            signature_set: self.signature_set.as_deref().unwrap_or_default().to_owned(),
            action: self.action,
            engine: self.engine,
            container,
            process: self.process.clone(),
            file: self.file.clone(),
            quarantine_item: self.item,
            gap: self.gap,
        }
    }

    fn output_fields(
        &self,
        container: Option<&ContainerFields>,
        known: &Known,
    ) -> BTreeMap<String, serde_json::Value> {
        let mut fields = falco::Fields::default();
        fields.event(self.time, self.access);
        if let Some(container) = container {
            let pod = self
                .container
                .as_deref()
                .and_then(|container| container.pod.as_ref());
            fields.container(container, known.name.as_deref(), pod);
        }
        if let Some(process) = &self.process {
            fields.process(process);
        }
        if let Some(file) = &self.file {
            fields.file(file);
        }
        fields.finish()
    }
}

fn container_fields(container: &Container, known: &Known) -> ContainerFields {
    ContainerFields {
        id: container.id.to_string(),
        namespace: container.namespace.clone(),
        image: container.image.clone().or_else(|| known.image.clone()),
        pod: container
            .pod
            .as_ref()
            .map(|pod| format!("{}/{}", pod.namespace, pod.name)),
    }
}

/// UTC with microseconds, e.g. `2026-02-03T04:05:06.000007Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    // Out of jiff's range means a clock beyond the year 9999.
    jiff::Timestamp::try_from(time).map_or_else(
        |_| "9999-12-30T22:00:00.000000Z".into(),
        |time| format!("{time:.6}"),
    )
}
