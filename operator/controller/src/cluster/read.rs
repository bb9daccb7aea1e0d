//! Decodes objects of the API server without the parts that the operator does not use. An object
//! that cannot be decoded does not fail the list or watch that contains it. No I/O.

mod part;

use std::borrow::Cow;

use flashjob_api::{DevicePlugin, FlashJob, FlashRollout, akri};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// An object, or the error of decoding it. Like [`kube::core::DeserializeGuard`], but parses the
/// text once instead of building a tree of it twice.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, UnreadableObject>);

/// An object that cannot be decoded: the error, and the parts that can be decoded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct UnreadableObject {
    /// The field, and what is wrong with it.
    pub error: String,
    /// Metadata of the object.
    pub metadata: ObjectMeta,
    status: Option<Box<RawValue>>,
}

impl UnreadableObject {
    /// Returns its status without the fields that cannot be decoded: stored devices in flight
    /// count even while the spec cannot be decoded. Without the stored conditions, the times of
    /// their transitions would differ in each status that reports the error, and it would be
    /// written again and again.
    #[must_use]
    pub fn status<S: DeserializeOwned + Default>(&self) -> S {
        let Some(text) = self.status.as_deref().map(RawValue::get) else { return S::default() };
        if let Ok(status) = serde_json::from_str(text) {
            return status;
        }
        let mut fields: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        fields.retain(|name, value| {
            let field = Map::from_iter([(name.clone(), value.clone())]);
            serde_json::from_value::<S>(Value::Object(field)).is_ok()
        });
        serde_json::from_value(Value::Object(fields)).unwrap_or_default()
    }
}

/// A kind that is read from the API server.
pub trait Readable: DeserializeOwned + Resource {
    /// Decodes an object: all of it except `metadata.managedFields`, unless a kind keeps less.
    ///
    /// # Errors
    /// The text is not such an object.
    fn read(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(&without_managed_fields(text))
    }
}

impl Readable for FlashJob {}
impl Readable for FlashRollout {}
impl Readable for DevicePlugin {}
impl Readable for akri::Instance {}
impl Readable for PodDisruptionBudget {}

impl<'de, K: Readable> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The raw text stays at hand: if decoding fails, metadata and status are read from it.
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let read = K::read(text).map(Ok);
        // An object without readable metadata has no name or uid by which to report it, so it does
        // fail the list.
        read.or_else(|error| Ok(Err(unreadable::<K>(text, &error).map_err(D::Error::custom)?)))
            .map(Self)
    }
}

fn unreadable<K: DeserializeOwned>(
    text: &str,
    error: &serde_json::Error,
) -> serde_json::Result<UnreadableObject> {
    #[derive(Deserialize)]
    struct Remains {
        #[serde(default)]
        metadata: ObjectMeta,
        status: Option<Box<RawValue>>,
    }
    let text = without_managed_fields(text);
    let Remains { metadata, status } = serde_json::from_str(&text)?;
    // Decoded from a tree, the error names the field instead of a line and column in a text that
    // nobody sees, and stays the same when the object gets a longer resourceVersion.
    let tree: Value = serde_json::from_str(&text)?;
    let of_field = serde_path_to_error::deserialize::<_, K>(tree).err();
    let error = of_field.map_or_else(|| error.to_string(), |error| error.to_string());
    Ok(UnreadableObject { error, metadata, status })
}

/// Parts of an object whose position in its text is needed.
#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(borrow)]
    metadata: Option<MetadataOutline<'a>>,
}

#[derive(Deserialize)]
struct MetadataOutline<'a> {
    #[serde(rename = "managedFields", borrow)]
    managed_fields: Option<&'a RawValue>,
}

/// Returns the text of the object with an empty list of managed fields.
fn without_managed_fields(text: &str) -> Cow<'_, str> {
    // With 4,096 uuids in two lists of type set, 394 of 882 KB of an object were managed fields.
    let outline = serde_json::from_str(text)
        .ok()
        .and_then(|outline: Outline<'_>| outline.metadata?.managed_fields);
    let Some(fields) = outline.map(RawValue::get) else { return Cow::Borrowed(text) };
    // `fields` borrows from `text`, so the distance of their addresses is its offset there.
    let start = fields.as_ptr().addr() - text.as_ptr().addr();
    let (before, after) = (&text[..start], &text[start + fields.len()..]);
    Cow::Owned([before, "[]", after].concat())
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use flashjob_api::FlashJobStatus;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use kube::ResourceExt;
    use kube::api::{ObjectList, WatchEvent};
    use serde_json::json;

    use super::*;

    #[test]
    fn managed_fields_are_skipped_and_all_else_is_read() {
        let managed = json!([{"manager": "\"]}", "fieldsV1": {"f:x": {}}}]);
        let text = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "a", "managedFields": managed, "uid": "b"},
            "spec": {"minAvailable": 5},
        });
        let event = json!({"type": "ADDED", "object": text}).to_string();
        // The API server writes the type first.
        let event = event
            .replacen(r#"{"object""#, r#"{"type":"ADDED","object""#, 1)
            .replace(r#","type":"ADDED"}"#, "}");
        let WatchEvent::Added(Guarded(Ok(budget))) =
            serde_json::from_str::<WatchEvent<Guarded<PodDisruptionBudget>>>(&event)
                .expect("an event")
        else {
            panic!("not a budget that was added")
        };
        assert_eq!((budget.name_any().as_str(), budget.uid().as_deref()), ("a", Some("b")));
        let least = budget.spec.and_then(|spec| spec.min_available);
        assert_eq!(least, Some(IntOrString::Int(5)));
        assert!(budget.metadata.managed_fields.is_none_or(|fields| fields.is_empty()));
    }

    #[test]
    fn one_object_that_cannot_be_decoded_does_not_spoil_the_list() {
        let list = json!({
            "apiVersion": "v1", "kind": "PodList", "metadata": {},
            "items": [
                {"metadata": {"name": "bad"}, "spec": {"containers": "none"}},
                {"metadata": {"name": "good"}},
            ],
        });
        let list: ObjectList<Guarded<Pod>> =
            serde_json::from_str(&list.to_string()).expect("a list");
        assert!(list.items[0].0.is_err() && list.items[1].0.is_ok());
        assert_eq!(
            (list.items[0].name_any(), list.items[1].name_any()),
            ("bad".to_owned(), "good".to_owned())
        );
    }

    #[test]
    fn an_object_that_cannot_be_decoded_names_the_field_and_keeps_its_status() {
        let job = json!({
            "metadata": {"name": "a"},
            "spec": {"firmware": 5},
            "status": {"message": "one device is in flight"},
        });
        let Guarded(job): Guarded<FlashJob> =
            serde_json::from_str(&job.to_string()).expect("an object");
        let unreadable = job.expect_err("its firmware is a number");
        let status: FlashJobStatus = unreadable.status();
        assert_eq!(status.message.as_deref(), Some("one device is in flight"));
        let expected = "spec.firmware: invalid type: integer `5`, expected a string";
        assert_eq!(unreadable.to_string(), expected);
    }

    #[test]
    fn a_field_of_the_status_that_cannot_be_decoded_leaves_the_others() {
        let device = json!({"uid": "a", "attempt": "first"});
        let job = json!({
            "metadata": {"name": "a"},
            "spec": {"firmware": "r.io/f:1", "version": "1", "uuid": ["a"]},
            "status": {"message": "one device is in flight", "devices": [device]},
        });
        let Guarded(job): Guarded<FlashJob> =
            serde_json::from_str(&job.to_string()).expect("an object");
        let unreadable = job.expect_err("the attempt is no number");
        assert!(unreadable.error.starts_with("status.devices[0].attempt: "), "{unreadable}");
        let status: FlashJobStatus = unreadable.status();
        let expected = FlashJobStatus {
            message: Some("one device is in flight".to_owned()),
            ..FlashJobStatus::default()
        };
        assert_eq!(status, expected);
    }
}
