//! Lists of models in the shapes of OpenAI and Anthropic: read, filtered, written.
//!
//! An entry stays as its source wrote it; only where a client speaks the other shape is one made from it.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::date;
use super::peek;

/// How a list and its entries are written.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"object":"list","data":[{"id","object":"model","created","owned_by"}]}`.
    OpenAi,
    /// `{"data":[{"type":"model","id","display_name","created_at"}],"has_more","first_id","last_id"}`.
    Anthropic,
}

/// Entries of one list that are read; the rest is left out.
const MAX_ENTRIES: usize = 10_000;

/// Longest id that is taken for one.
const MAX_ID: usize = 512;

/// One model.
#[derive(Clone, Debug)]
pub struct Entry {
    id: Box<str>,
    shape: Shape,
    /// As its source wrote it.
    json: Box<str>,
}

/// One answer to a request for the list.
#[derive(Debug)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// More follow behind this id.
    pub next: Option<String>,
}

/// What an entry says of itself, as far as the other shape needs it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Facts {
    id: Option<Value>,
    object: Option<Value>,
    r#type: Option<Value>,
    created: Option<Value>,
    created_at: Option<Value>,
    display_name: Option<Value>,
    owned_by: Option<Value>,
}

impl Facts {
    fn text(value: Option<&Value>) -> Option<&str> {
        value.and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn created(&self) -> i64 {
        let number = |v: &Value| v.as_i64().or_else(|| v.as_str().and_then(date::unix_seconds));
        self.created.as_ref().and_then(number).or_else(|| self.created_at.as_ref().and_then(number)).unwrap_or(0)
    }
}

impl Entry {
    /// An entry from its JSON; `None` when it has no usable id.
    #[must_use]
    pub fn read(json: &str) -> Option<Self> {
        let facts: Facts = serde_json::from_str(json).ok()?;
        let id = Facts::text(facts.id.as_ref()).filter(|id| id.len() <= MAX_ID)?.into();
        let is_anthropics = facts.object.is_none() && Facts::text(facts.r#type.as_ref()) == Some("model");
        let shape = if is_anthropics { Shape::Anthropic } else { Shape::OpenAi };
        Some(Self { id, shape, json: json.into() })
    }

    /// An entry from the configuration. `created`: Unix seconds.
    #[must_use]
    pub fn made(id: &str, owned_by: &str, display_name: Option<&str>, created: i64) -> Self {
        let name = display_name.map(|name| format!(",\"display_name\":{}", quoted(name))).unwrap_or_default();
        let (quoted_id, owned_by) = (quoted(id), quoted(owned_by));
        let json =
            format!("{{\"id\":{quoted_id},\"object\":\"model\",\"created\":{created},\"owned_by\":{owned_by}{name}}}");
        Self { id: id.into(), shape: Shape::OpenAi, json: json.into() }
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same model under another name.
    #[must_use]
    pub fn renamed(&self, id: &str) -> Self {
        let json = replace_id(self.json.as_bytes(), id).and_then(|b| String::from_utf8(b).ok());
        let json = json.unwrap_or_else(|| self.json.to_string());
        Self { id: id.into(), shape: self.shape, json: json.into() }
    }

    /// The entry in a shape.
    #[must_use]
    pub fn write(&self, shape: Shape) -> Bytes {
        let mut out = Vec::with_capacity(self.json.len() + 32);
        self.append(shape, &mut out);
        out.into()
    }

    fn append(&self, shape: Shape, out: &mut Vec<u8>) {
        if self.shape == shape {
            out.extend_from_slice(self.json.as_bytes());
            return;
        }
        let facts: Facts = serde_json::from_str(&self.json).unwrap_or_default();
        let (id, created) = (quoted(&self.id), facts.created());
        let text = match shape {
            Shape::OpenAi => {
                let owner = quoted(Facts::text(facts.owned_by.as_ref()).unwrap_or("anthropic"));
                format!("{{\"id\":{id},\"object\":\"model\",\"created\":{created},\"owned_by\":{owner}}}")
            }
            Shape::Anthropic => {
                let name = quoted(Facts::text(facts.display_name.as_ref()).unwrap_or(&self.id));
                let at = date::rfc3339(created);
                format!("{{\"type\":\"model\",\"id\":{id},\"display_name\":{name},\"created_at\":\"{at}\"}}")
            }
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// The JSON of one entry with another id, every other byte as it was; `None` when it has no id.
#[must_use]
pub fn replace_id(json: &[u8], id: &str) -> Option<Vec<u8>> {
    let [Some(place)] = peek::top_level(json, ["id"]).ok()? else { return None };
    Some(spliced(json, vec![(place, quoted(id).into_bytes())]))
}

/// Reads a list in either shape, or a bare array of entries; `None` when it is none of them.
#[must_use]
pub fn read(json: &[u8]) -> Option<Page> {
    let document = Document::of(json)?;
    let entries = document.entries.iter().filter_map(|raw| Entry::read(raw.get()));
    let entries: Vec<Entry> = entries.take(MAX_ENTRIES).collect();
    Some(Page { next: document.next(json), entries })
}

/// A whole list.
#[must_use]
pub fn write<'e>(entries: impl IntoIterator<Item = &'e Entry>, shape: Shape) -> Bytes {
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(match shape {
        Shape::OpenAi => b"{\"object\":\"list\",\"data\":[",
        Shape::Anthropic => b"{\"data\":[".as_slice(),
    });
    let (mut first, mut last) = (None, None);
    for entry in entries {
        if last.is_some() {
            out.push(b',');
        }
        entry.append(shape, &mut out);
        first = first.or(Some(&entry.id));
        last = Some(&entry.id);
    }
    out.push(b']');
    if shape == Shape::Anthropic {
        let id = |id: Option<&Box<str>>| id.map_or_else(|| "null".to_owned(), |id| quoted(id));
        let (first, last) = (id(first), id(last));
        out.extend_from_slice(format!(",\"has_more\":false,\"first_id\":{first},\"last_id\":{last}").as_bytes());
    }
    out.push(b'}');
    out.into()
}

/// What became of a list that was filtered.
#[derive(Debug, PartialEq, Eq)]
pub enum Edited {
    /// Nothing was to be changed.
    Same,
    Changed(Bytes),
    /// Not a list as we know it: nothing can be said of what is in it.
    Unreadable,
}

/// Leaves out the entries that `keep` refuses and adds the models that `more` makes from those of the whole list, which
/// may be in it already. In the wanted shape all else stays as it was, byte for byte.
#[must_use]
pub fn edit(
    json: &[u8],
    wanted: Shape,
    keep: impl Fn(&str) -> bool,
    more: impl FnOnce(&[Entry]) -> Vec<Entry>,
) -> Edited {
    let Some(document) = Document::of(json) else { return Edited::Unreadable };
    // What has no id cannot be judged.
    let all: Vec<Entry> = document.entries.iter().filter_map(|raw| Entry::read(raw.get())).take(MAX_ENTRIES).collect();
    let mut kept: Vec<Entry> = all.iter().filter(|entry| keep(&entry.id)).cloned().collect();
    let unchanged = kept.len() == document.entries.len();
    let before = kept.len();
    for entry in more(&all) {
        if !kept.iter().any(|known| known.id == entry.id) {
            kept.push(entry);
        }
    }
    if document.shape != wanted {
        return Edited::Changed(write(&kept, wanted));
    }
    if unchanged && kept.len() == before {
        return Edited::Same;
    }
    let mut data = vec![b'['];
    for (i, entry) in kept.iter().enumerate() {
        if i > 0 {
            data.push(b',');
        }
        entry.append(wanted, &mut data);
    }
    data.push(b']');
    let mut edits = vec![(document.data.clone(), data)];
    let mut id = |place: &Option<Range<usize>>, entry: Option<&Entry>| {
        if let Some(place) = place {
            edits.push((place.clone(), entry.map_or_else(|| "null".to_owned(), |e| quoted(&e.id)).into_bytes()));
        }
    };
    id(&document.first_id, kept.first());
    // With more to come it is where the next page begins.
    if document.next(json).is_none() {
        id(&document.last_id, kept.last());
    }
    Edited::Changed(spliced(json, edits).into())
}

/// A list as it came, with the places of what may change.
struct Document<'j> {
    shape: Shape,
    data: Range<usize>,
    entries: Vec<&'j RawValue>,
    has_more: bool,
    first_id: Option<Range<usize>>,
    last_id: Option<Range<usize>>,
}

impl<'j> Document<'j> {
    fn of(json: &'j [u8]) -> Option<Self> {
        if let Ok(entries) = serde_json::from_slice(json) {
            let (first_id, last_id) = (None, None);
            return Some(Self {
                shape: Shape::OpenAi,
                data: 0..json.len(),
                entries,
                has_more: false,
                first_id,
                last_id,
            });
        }
        let names = ["data", "object", "has_more", "first_id", "last_id"];
        let [data, object, has_more, first_id, last_id] = peek::top_level(json, names).ok()?;
        let data = data?;
        let entries = serde_json::from_slice(&json[data.clone()]).ok()?;
        let shape = if object.is_none() && has_more.is_some() { Shape::Anthropic } else { Shape::OpenAi };
        let has_more = has_more.is_some_and(|place| &json[place] == b"true");
        Some(Self { shape, data, entries, has_more, first_id, last_id })
    }

    fn next(&self, json: &[u8]) -> Option<String> {
        let place = self.last_id.clone().filter(|_| self.has_more)?;
        serde_json::from_slice(&json[place]).ok()
    }
}

/// The bytes with some places replaced; they do not overlap.
fn spliced(json: &[u8], mut edits: Vec<(Range<usize>, Vec<u8>)>) -> Vec<u8> {
    edits.sort_by_key(|(place, _)| place.start);
    let mut out = Vec::with_capacity(json.len() + 64);
    let mut at = 0;
    for (place, text) in edits {
        out.extend_from_slice(&json[at..place.start]);
        out.extend_from_slice(&text);
        at = place.end;
    }
    out.extend_from_slice(&json[at..]);
    out
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const OPENAI: &str = r#"{ "object": "list",  "data": [ {"id":"a","object":"model", "created": 1739923200,"x":[1]},
        {"id":"b/c:d","object":"model"} ], "extra": 1.50 }"#;
    const ANTHROPIC: &str = r#"{"data":[{"type":"model","id":"claude-1","display_name":"Claude 1","created_at":"2025-02-19T00:00:00Z"},{"type":"model","id":"claude-2","display_name":"Claude 2","created_at":"2025-02-20T00:00:00Z"}],"has_more":false,"first_id":"claude-1","last_id":"claude-2"}"#;

    fn ids(page: &Page) -> Vec<&str> {
        page.entries.iter().map(Entry::id).collect()
    }

    fn none(_: &[Entry]) -> Vec<Entry> {
        Vec::new()
    }

    fn parsed(edited: Edited) -> Value {
        let Edited::Changed(bytes) = edited else { panic!("{edited:?}") };
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn both_shapes_and_bare_arrays_are_read() {
        assert_eq!(ids(&read(OPENAI.as_bytes()).unwrap()), ["a", "b/c:d"]);
        assert_eq!(ids(&read(ANTHROPIC.as_bytes()).unwrap()), ["claude-1", "claude-2"]);
        assert_eq!(ids(&read(br#"[{"id":"t","type":"chat"},{"id":5},{},7,{"id":""}]"#).unwrap()), ["t"]);
        for other in ["", "{}", "7", r#"{"data":{}}"#, r#"{"data":null}"#, r#"{"data":[],"Data":[]}"#, "{\"data\":["] {
            assert!(read(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn a_page_tells_where_the_next_begins() {
        let more = ANTHROPIC.replace("false", "true");
        assert_eq!(read(more.as_bytes()).unwrap().next.as_deref(), Some("claude-2"));
        assert_eq!(read(ANTHROPIC.as_bytes()).unwrap().next, None);
    }

    #[test]
    fn entries_keep_their_bytes_in_their_own_shape_and_are_made_in_the_other() {
        let page = read(OPENAI.as_bytes()).unwrap();
        assert_eq!(
            page.entries[0].write(Shape::OpenAi),
            r#"{"id":"a","object":"model", "created": 1739923200,"x":[1]}"#
        );
        let list: Value = serde_json::from_slice(&write(&page.entries, Shape::Anthropic)).unwrap();
        let first = json!({"type":"model","id":"a","display_name":"a","created_at":"2025-02-19T00:00:00Z"});
        assert_eq!(list["data"][0], first);
        assert_eq!(list["data"][1]["created_at"], "1970-01-01T00:00:00Z");
        assert_eq!(
            (&list["has_more"], &list["first_id"], &list["last_id"]),
            (&json!(false), &json!("a"), &json!("b/c:d"))
        );
        let page = read(ANTHROPIC.as_bytes()).unwrap();
        let list: Value = serde_json::from_slice(&write(&page.entries, Shape::OpenAi)).unwrap();
        let first = json!({"id":"claude-1","object":"model","created":1_739_923_200,"owned_by":"anthropic"});
        assert_eq!(list, json!({"object":"list","data":[first, list["data"][1]]}));
        let empty: Value = serde_json::from_slice(&write([], Shape::Anthropic)).unwrap();
        assert_eq!(empty, json!({"data":[],"has_more":false,"first_id":null,"last_id":null}));
    }

    #[test]
    fn made_and_renamed_entries() {
        let made = Entry::made("m\"x", "me", Some("My"), 5);
        let json: Value = serde_json::from_slice(&made.write(Shape::OpenAi)).unwrap();
        let expected = json!({"id":"m\"x","object":"model","created":5,"owned_by":"me","display_name":"My"});
        assert_eq!(json, expected);
        let json: Value = serde_json::from_slice(&made.write(Shape::Anthropic)).unwrap();
        assert_eq!(json["display_name"], "My");
        let renamed = read(OPENAI.as_bytes()).unwrap().entries[0].renamed("z");
        assert_eq!(renamed.id(), "z");
        assert_eq!(renamed.write(Shape::OpenAi), r#"{"id":"z","object":"model", "created": 1739923200,"x":[1]}"#);
    }

    #[test]
    fn a_list_that_nothing_changes_stays() {
        assert_eq!(edit(OPENAI.as_bytes(), Shape::OpenAi, |_| true, none), Edited::Same);
        assert_eq!(edit(ANTHROPIC.as_bytes(), Shape::Anthropic, |_| true, none), Edited::Same);
        let known = |all: &[Entry]| vec![all[0].clone()];
        assert_eq!(edit(OPENAI.as_bytes(), Shape::OpenAi, |_| true, known), Edited::Same);
        assert_eq!(edit(b"<html>", Shape::OpenAi, |_| true, none), Edited::Unreadable);
    }

    #[test]
    fn entries_are_left_out_and_added_in_place() {
        let Edited::Changed(bytes) = edit(OPENAI.as_bytes(), Shape::OpenAi, |id| id != "a", none) else { panic!() };
        assert_eq!(bytes, r#"{ "object": "list",  "data": [{"id":"b/c:d","object":"model"}], "extra": 1.50 }"#);
        let alias = |all: &[Entry]| vec![all[0].renamed("fast")];
        let list = parsed(edit(OPENAI.as_bytes(), Shape::OpenAi, |_| true, alias));
        assert_eq!((&list["data"][2]["id"], &list["data"][2]["x"]), (&json!("fast"), &json!([1])));
        // An entry without an id cannot be judged, so it does not pass.
        let list = parsed(edit(br#"{"data":[{"id":"a"},{"x":1}]}"#, Shape::OpenAi, |_| true, none));
        assert_eq!(list, json!({"data":[{"id":"a"}]}));
        let list = parsed(edit(br#"{"data":[]}"#, Shape::OpenAi, |_| true, |_| vec![Entry::made("m", "me", None, 0)]));
        assert_eq!(list["data"][0]["id"], "m");
    }

    #[test]
    fn anthropics_ends_name_what_is_left() {
        let list = parsed(edit(ANTHROPIC.as_bytes(), Shape::Anthropic, |id| id == "claude-2", none));
        assert_eq!((&list["first_id"], &list["last_id"]), (&json!("claude-2"), &json!("claude-2")));
        let list = parsed(edit(ANTHROPIC.as_bytes(), Shape::Anthropic, |_| false, none));
        assert_eq!((&list["data"], &list["last_id"]), (&json!([]), &json!(null)));
        // The place where the next page begins is needed to ask for it.
        let more = ANTHROPIC.replace("false", "true");
        let list = parsed(edit(more.as_bytes(), Shape::Anthropic, |id| id == "claude-1", none));
        assert_eq!(list["last_id"], "claude-2");
        let list = parsed(edit(ANTHROPIC.as_bytes(), Shape::OpenAi, |_| true, none));
        assert_eq!(list["object"], "list");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_what_is_kept_is_what_was_wanted(
            ids in prop::collection::vec("[a-c]{1,2}", 0..6), noise in prop::collection::vec(any::<u8>(), 0..32),
        ) {
            let _ = read(&noise);
            let _ = edit(&noise, Shape::Anthropic, |_| true, none);
            let data: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
            let text = json!({"data": data}).to_string();
            let kept: Vec<&String> = ids.iter().filter(|id| id.starts_with('a')).collect();
            match edit(text.as_bytes(), Shape::OpenAi, |id| id.starts_with('a'), none) {
                Edited::Same => prop_assert_eq!(kept.len(), ids.len()),
                Edited::Changed(bytes) => {
                    let page = read(&bytes).unwrap();
                    prop_assert_eq!(page.entries.iter().map(Entry::id).collect::<Vec<_>>(), kept);
                }
                Edited::Unreadable => prop_assert!(false),
            }
        }
    }
}
