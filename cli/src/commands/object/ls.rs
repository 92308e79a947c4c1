//! `secret ls` and the like

use swarm_docker_api::view::{ObjectSpecView, ObjectView, Time};
use swarm_model::Timestamp;

use super::Kind;
use crate::{
    client::Query,
    clock,
    context::Context,
    filters,
    format::{Columns, ListFormat, Row, render, row},
    units::{human_duration, natural_cmp, short_id},
};

const COLUMNS: Columns = Columns {
    default: "{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}\t{{.Services}}",
    titles: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("CreatedAt", "CREATED"),
        ("UpdatedAt", "UPDATED"),
        ("Services", "SERVICES"),
        ("Labels", "LABELS"),
    ],
};

/// Lists objects.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    list: ListFormat,
}

impl Ls {
    pub(crate) async fn run(self, context: &mut Context, kind: Kind) -> anyhow::Result<()> {
        let query = Query::new().with("services", true).with_some("filters", filters::to_json(&self.list.filter));
        let mut objects: Vec<ObjectView<ObjectSpecView>> = context.client.get(kind.path, query).await?;
        objects.sort_by(|a, b| natural_cmp(&a.spec.name, &b.spec.name).then_with(|| a.id.cmp(&b.id)));
        let now = clock::now();
        let rows = objects.iter().map(|object| object_row(object, now)).collect();
        let text = render(&COLUMNS, rows, self.list.format.as_deref(), self.list.quiet)?;
        Ok(context.out.print(&text)?)
    }
}

fn object_row(object: &ObjectView<ObjectSpecView>, now: Timestamp) -> Row {
    let ago = |Time(at)| format!("{} ago", human_duration(now.since_ns(at)));
    let labels: Vec<String> = object.spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut services = object.services.clone().unwrap_or_default();
    services.sort_by(|a, b| natural_cmp(a, b));
    row([
        ("ID", short_id(&object.id).to_owned()),
        ("Name", object.spec.name.clone()),
        ("CreatedAt", ago(object.created_at)),
        ("UpdatedAt", ago(object.updated_at)),
        ("Services", services.join(", ")),
        ("Labels", labels.join(",")),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_uses_it_shows() {
        let object = |name: &str, services: serde_json::Value| -> ObjectView<ObjectSpecView> {
            let times = ("2026-11-22T11:43:00Z", "2026-11-22T11:45:00Z");
            serde_json::from_value(json!({
                "ID": "hvxd25i1aj492kikrao8sjqx7", "CreatedAt": times.0, "UpdatedAt": times.1,
                "Spec": {"Name": name, "Labels": {}}, "Services": services,
            }))
            .expect("an object as swarmd shows it")
        };
        let Time(now) = Time::parse("2026-11-22T11:48:00Z").expect("a time");
        let objects = [object("tls.key", json!(["web", "api"])), object("unused", json!([]))];
        let rows = objects.iter().map(|object| object_row(object, now)).collect();
        assert_eq!(
            render(&COLUMNS, rows, None, false).expect("the default format"),
            "\
ID             NAME      CREATED         UPDATED         SERVICES
hvxd25i1aj49   tls.key   5 minutes ago   3 minutes ago   api, web
hvxd25i1aj49   unused    5 minutes ago   3 minutes ago
"
        );
    }
}
