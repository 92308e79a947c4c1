//! `inspect` of any kind of object.

use serde_json::Value;

use crate::{
    client::{ClientError, Query, read, segment},
    context::Context,
    error::Reported,
    json_text,
    template::Template,
};

/// Flags of every `inspect`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct InspectFlags {
    /// Go template for each object, such as '{{.ID}}' or '{{json .Spec}}'
    #[arg(short, long, value_name = "TEMPLATE", conflicts_with = "pretty")]
    pub(crate) format: Option<String>,
    /// Print for people
    #[arg(long)]
    pub(crate) pretty: bool,
}

/// How to print one answer that is made for people.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct AnswerFormat {
    /// 'json', or a Go template such as '{{json .}}' [default: for people]
    #[arg(id = "format", short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

impl AnswerFormat {
    /// The answer as it was asked for; none if that is for people.
    ///
    /// # Errors
    /// The template cannot be read, or the answer is no JSON.
    pub(crate) fn apply(&self, path: &str, json: &[u8]) -> anyhow::Result<Option<String>> {
        let value: Value = read(path, json)?;
        Ok(match self.format.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            None => None,
            Some("json") => Some(json_text::indent(&String::from_utf8_lossy(json))),
            Some(text) => Some(Template::parse(text)?.render(&value)?),
        })
    }
}

/// A kind of object.
pub(crate) struct Kind<T> {
    /// Its path, `/services`.
    pub(crate) path: &'static str,
    /// Its name, `service`.
    pub(crate) name: &'static str,
    /// What else is asked for.
    pub(crate) query: Query,
    /// Writes it for people.
    pub(crate) pretty: Box<dyn Fn(&T) -> String>,
}

/// Shows objects: what is found on standard output, what is not on standard error.
///
/// # Errors
/// [`Reported`] if an object is missing.
pub(crate) async fn inspect<T: serde::de::DeserializeOwned>(
    context: &mut Context,
    kind: Kind<T>,
    refs: &[String],
    flags: &InspectFlags,
) -> anyhow::Result<()> {
    let template = match flags.format.as_deref().filter(|f| *f != "json") {
        Some(text) => Some(Template::parse(text)?),
        None => None,
    };
    let mut found = Vec::new();
    let mut missing = false;
    for reference in refs {
        let path = format!("{}/{}", kind.path, segment(reference));
        match context.client.get_bytes(&path, kind.query.clone()).await {
            Ok(bytes) => found.push((path, bytes)),
            Err(error @ ClientError::Refused { .. }) => {
                missing = true;
                let text = if error.is_not_found() {
                    format!("no such {}: {reference}", kind.name)
                } else {
                    error.to_string()
                };
                context.out.note(&format!("Error: {text}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if flags.pretty {
        for (i, (path, bytes)) in found.iter().enumerate() {
            let text = (kind.pretty)(&read(path, bytes)?);
            context.out.print(&if i == 0 { text } else { format!("\n{text}") })?;
        }
    } else if let Some(template) = template {
        for (path, bytes) in &found {
            let value: Value = read(path, bytes)?;
            context.out.line(&template.render(&value)?)?;
        }
    } else {
        let mut objects = Vec::new();
        for (path, bytes) in &found {
            // Read only to be sure that it is JSON; shown as it came.
            read::<serde::de::IgnoredAny>(path, bytes)?;
            objects.push(String::from_utf8_lossy(bytes));
        }
        let list = format!("[{}]", objects.join(","));
        let text = if flags.format.is_some() { list.replace('\n', "") } else { json_text::indent(&list) };
        context.out.line(&text)?;
    }
    if missing { Err(Reported.into()) } else { Ok(()) }
}
