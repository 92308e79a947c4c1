//! `secret create` and the like

use std::{
    fs::File,
    io::{Read, stdin},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use swarm_docker_api::view::CreateObjectResponse;

use super::Kind;
use crate::{
    client::{Query, read},
    context::Context,
    spec_flags::parse_label,
};

/// Makes an object from data.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Create {
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
    /// File with the data, - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Add a label; can be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// Template driver: each node fills in the placeholders of the data for its tasks (golang)
    #[arg(long, value_name = "DRIVER")]
    template_driver: Option<String>,
}

impl Create {
    /// Makes it.
    pub(crate) async fn run(self, context: &mut Context, kind: Kind) -> anyhow::Result<()> {
        let data = read_data(&self.file, kind)?;
        let labels: Map<String, Value> = self.label.into_iter().map(|(key, value)| (key, value.into())).collect();
        let mut body = json!({"Name": self.name, "Labels": labels, "Data": BASE64_STANDARD.encode(data)});
        if let Some(driver) = self.template_driver {
            body["Templating"] = json!({"Name": driver});
        }
        let path = format!("{}/create", kind.path);
        let answer = context.client.post(&path, Query::new(), &body, None).await?;
        let created: CreateObjectResponse = read(&path, &answer)?;
        Ok(context.out.line(&created.id)?)
    }
}

/// The data; no more of it than one byte too many is read.
fn read_data(file: &Path, kind: Kind) -> anyhow::Result<Vec<u8>> {
    let limit = kind.bytes_limit as u64;
    let mut data = Vec::new();
    let (from, read) = match file.to_str() {
        Some("-") => ("standard input".to_owned(), stdin().take(limit).read_to_end(&mut data)),
        _ => (file.display().to_string(), File::open(file).and_then(|file| file.take(limit).read_to_end(&mut data))),
    };
    let size = read.with_context(|| format!("the data of the {} cannot be read from {from}", kind.name))?;
    if size == 0 {
        bail!("{from} holds no data");
    }
    if size as u64 == limit {
        bail!("{from} holds too much: the data of a {} has fewer than {limit} bytes", kind.name);
    }
    Ok(data)
}
