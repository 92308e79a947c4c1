//! The spec that flags change, as JSON.
//!
//! It is not read into a struct and written anew: what this program does not know must go back to the server as it
//! came.

use serde::Serialize;
use serde_json::{Map, Value, json};
use swarm_model::Platform;

use super::{image::with_tag, key_value::Pair};

const IMAGE: &str = "TaskTemplate/ContainerSpec/Image";
const PLATFORMS: &str = "TaskTemplate/Placement/Platforms";

/// A service spec on its way to the server. Paths are the JSON names with `/` between them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    spec: Value,
    notes: Vec<String>,
}

impl Draft {
    /// The spec of a new service, of which nothing is said yet.
    pub(super) fn new() -> Self {
        Self::of(json!({"Labels": {}, "TaskTemplate": {"ContainerSpec": {}, "ForceUpdate": 0}}))
    }

    /// The spec of a service as the server showed it.
    pub(crate) fn of(spec: Value) -> Self {
        Self { spec, notes: Vec::new() }
    }

    /// The spec.
    pub(crate) fn spec(&self) -> &Value {
        &self.spec
    }

    /// What the user should know: flags that had nothing to do.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The image.
    pub(crate) fn image(&self) -> &str {
        self.text(IMAGE)
    }

    /// Writes an image as the user gave it. The platforms of the one before say nothing about it.
    pub(super) fn set_image(&mut self, image: &str) {
        self.set(IMAGE, with_tag(image));
        self.remove(PLATFORMS);
    }

    /// Writes what a registry says about the image: its digest, and the platforms that it is made for.
    pub(crate) fn pin_image(&mut self, digest: &str, platforms: &[Platform]) {
        self.set(IMAGE, format!("{}@{digest}", self.image()));
        self.put(PLATFORMS, platforms);
    }

    /// What is at a path. `null` is as good as nothing.
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        path.split('/').try_fold(&self.spec, |at, key| at.get(key)).filter(|value| !value.is_null())
    }

    /// The text at a path, or an empty one.
    pub(super) fn text(&self, path: &str) -> &str {
        self.get(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// The list at a path, or an empty one.
    pub(super) fn list(&self, path: &str) -> Vec<Value> {
        self.get(path).and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// Writes a value, and the objects around it if there are none.
    pub(super) fn set(&mut self, path: &str, value: impl Serialize) {
        let mut at = &mut self.spec;
        for key in path.split('/') {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[key];
        }
        *at = json(value);
    }

    /// Writes a value, or removes it if it is nothing: empty, zero or false. Not for fields in which that differs
    /// from absence.
    pub(super) fn put(&mut self, path: &str, value: impl Serialize) {
        let value = json(value);
        let is_nothing = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::Bool(true) => false,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
        if is_nothing { self.remove(path) } else { self.set(path, value) }
    }

    /// [`Draft::set`] if there is a value.
    pub(super) fn set_some(&mut self, path: &str, value: Option<impl Serialize>) {
        if let Some(value) = value {
            self.set(path, value);
        }
    }

    /// [`Draft::put`] if there is a value.
    pub(super) fn put_some(&mut self, path: &str, value: Option<impl Serialize>) {
        if let Some(value) = value {
            self.put(path, value);
        }
    }

    /// Removes what is at a path.
    pub(super) fn remove(&mut self, path: &str) {
        let (parent, key) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = parent.split('/').filter(|key| !key.is_empty());
        let fields = parent.into_iter().try_fold(&mut self.spec, |at, key| at.get_mut(key));
        if let Some(fields) = fields.and_then(Value::as_object_mut) {
            fields.remove(key);
        }
    }

    /// Puts items into a list; one that `is_same` as an item of the list takes its place.
    pub(super) fn merge<T: Serialize>(
        &mut self,
        path: &str,
        items: impl IntoIterator<Item = T>,
        is_same: impl Fn(&Value, &Value) -> bool,
    ) {
        let mut list = self.list(path);
        let mut is_changed = false;
        for item in items.into_iter().map(json) {
            match list.iter_mut().find(|other| is_same(other, &item)) {
                Some(other) => *other = item,
                None => list.push(item),
            }
            is_changed = true;
        }
        if is_changed {
            self.put(path, list);
        }
    }

    /// Puts pairs into a map.
    pub(super) fn merge_map(&mut self, path: &str, pairs: &[Pair]) {
        if pairs.is_empty() {
            return;
        }
        let mut map = self.get(path).and_then(Value::as_object).cloned().unwrap_or_default();
        map.extend(pairs.iter().map(|(key, value)| (key.clone(), value.as_str().into())));
        self.set(path, map);
    }

    /// Takes the items that match out of a list; `flag` is what asked for that.
    pub(super) fn discard(&mut self, path: &str, flag: &str, matches: impl Fn(&Value) -> bool) {
        let mut list = self.list(path);
        let before = list.len();
        list.retain(|item| !matches(item));
        if list.len() == before {
            self.note_missing(flag);
        } else {
            self.put(path, list);
        }
    }

    /// Takes a key out of a map.
    pub(super) fn discard_key(&mut self, path: &str, flag: &str, key: &str) {
        let mut map = self.get(path).and_then(Value::as_object).cloned().unwrap_or_default();
        if map.remove(key).is_none() {
            self.note_missing(flag);
        } else {
            self.set(path, map);
        }
    }

    /// Notes that a flag found nothing to remove. As in Docker that is no error: scripts repeat themselves.
    pub(super) fn note_missing(&mut self, flag: &str) {
        self.notes.push(format!("{flag}: the service has none"));
    }
}

/// A value as JSON.
fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("the parts of a spec have text for keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_when_they_are_needed() {
        let mut draft = Draft::of(json!({"A": null, "X": 1}));
        draft.put("A/B/C", 0);
        draft.remove("A/B");
        draft.remove("N");
        assert_eq!(draft.spec(), &json!({"A": null, "X": 1}));
        draft.put("A/B/C", 2);
        draft.set("A/D", 0);
        assert_eq!(draft.spec(), &json!({"A": {"B": {"C": 2}, "D": 0}, "X": 1}));
        draft.put("A/B/C", "");
        draft.remove("X");
        assert_eq!(draft.spec(), &json!({"A": {"B": {}, "D": 0}}));
    }

    #[test]
    fn items_keep_their_places() {
        let mut draft = Draft::of(json!({"L": ["a=1", "b=2"], "M": {"x/y": "1"}}));
        let same_letter = |a: &Value, b: &Value| a.as_str().map(|a| &a[..1]) == b.as_str().map(|b| &b[..1]);
        draft.merge("L", ["a=3", "c=4"], same_letter);
        draft.merge("N", Vec::<String>::new(), same_letter);
        draft.merge_map("M", &[("k".to_owned(), "v".to_owned())]);
        assert_eq!(draft.spec(), &json!({"L": ["a=3", "b=2", "c=4"], "M": {"k": "v", "x/y": "1"}}));
        draft.discard("L", "--l-rm a=3", |item| item == "a=3");
        draft.discard("L", "--l-rm z", |item| item == "z");
        draft.discard_key("M", "--m-rm x/y", "x/y");
        draft.discard_key("M", "--m-rm z", "z");
        assert_eq!(draft.spec(), &json!({"L": ["b=2", "c=4"], "M": {"k": "v"}}));
        assert_eq!(draft.notes(), ["--l-rm z: the service has none", "--m-rm z: the service has none"]);
    }
}
