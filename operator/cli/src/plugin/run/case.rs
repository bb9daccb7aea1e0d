//! One attempt to flash one device: the job, the device, and the request that the plugin gets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use flashjob_api::{EffectiveSpec, FlashJob};
use flashjob_config::PluginConfig;
use flashjob_plugin_host::Plugin;
use flashjob_plugin_host::types::Request;
use flashjob_rules::flashjob::observed::{Instance, Job};
use flashjob_rules::flashjob::plan::request::{self, DeviceFacts};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::{cluster, question};
use crate::decode::decode;
use crate::failure::Failure;
use crate::number::number;

/// Placeholder for the uid that the API server gives a FlashJob.
const JOB_UID: &str = "00000000-0000-4000-8000-000000000000";

/// The job and the device. What is not said is as in an example.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device and job")]
#[group(id = "case", multiple = true)]
pub struct CaseOptions {
    /// A FlashJob, in YAML or JSON.
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    /// An Akri Instance of the cluster.
    #[arg(long, value_name = "INSTANCE")]
    device: Option<String>,
    /// The namespace of job and device.
    #[arg(short, long, value_parser = crate::cluster::namespace)]
    namespace: Option<String>,
    /// The device's type.
    #[arg(long)]
    device_type: Option<String>,
    /// host:port of the device.
    #[arg(long)]
    endpoint: Option<String>,
    /// The version that the device reports.
    #[arg(long, value_name = "VERSION")]
    device_version: Option<String>,
    /// A property of the device, as Akri has it; empty: none. May be given several times.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
    /// The firmware.
    #[arg(long, value_name = "REFERENCE")]
    firmware: Option<String>,
    /// The version that the device shall report.
    #[arg(long, value_name = "VERSION")]
    firmware_version: Option<String>,
    /// The job's flashjobPodImage.
    #[arg(long)]
    image: Option<String>,
    /// The job's settings for this plugin: a JSON object.
    #[arg(long, value_name = "JSON")]
    settings: Option<String>,
    /// The number of the attempt.
    #[arg(long, value_name = "N", value_parser = |text: &str| number(text, 1..=u32::MAX))]
    attempt: Option<u32>,
}

fn property(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected NAME=VALUE".to_owned())
}

/// One attempt to flash one device.
pub struct Case {
    /// The job.
    pub job: Job,
    /// Its spec.
    pub spec: EffectiveSpec,
    /// The device.
    pub instance: Instance,
    /// Request that the plugin gets.
    pub request: Request,
}

impl Case {
    /// Creates the attempt from a request, with the job and the device that it describes.
    pub fn of_request(request: Request, plugin: &str) -> Result<Self, Failure> {
        let settings: Map<String, Value> =
            serde_json::from_str(&request.settings).map_err(|error| {
                Failure::usage(format!("settings of the request are not one JSON object: {error}"))
            })?;
        let device = &request.device;
        let properties =
            device.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let instance = Instance::new(
            &request.namespace,
            &device.name,
            &device.uid,
            device.nodes.clone(),
            properties,
        );
        // An endpoint that Akri does not report can only come from `spec.hostEndpoint`.
        let overriding =
            device.endpoint.as_deref().filter(|endpoint| instance.endpoint() != Some(endpoint));
        let spec = json!({
            "uuid": [device.uid], "firmware": request.firmware, "version": request.version,
            "flashjobPodImage": request.image, "hostEndpoint": overriding,
            "settings": (!settings.is_empty()).then(|| json!({plugin: settings})),
        });
        let job = job(json!({
            "metadata": {"name": request.job, "namespace": request.namespace}, "spec": spec,
        }))?;
        let (job, spec) = effective(job)?;
        Ok(Self { job, spec, instance, request })
    }

    /// Combines job and device, and builds the request as the operator does.
    pub async fn of_options(
        options: &CaseOptions,
        plugin: &Plugin,
        configured: Option<&PluginConfig>,
    ) -> Result<Self, Failure> {
        let name = &plugin.info().name;
        let first =
            plugin.info().device_types.first().map_or("example", |types| types.first().as_ref());
        let example = question::example(options.device_type.as_deref().unwrap_or(first));
        let file_job = options.job.as_deref().map(question::read).transpose()?;
        let instance = options.instance(&example).await?;
        let job = job(options.job(file_job, &example, &instance, name)?)?;
        let (job, spec) = effective(job)?;
        let (beneath, above) = configured
            .map(|configured| (configured.settings.clone(), configured.locked_settings.clone()))
            .unwrap_or_default();
        let settings = request::settings(name, &beneath, &spec.settings, &above);
        let facts = DeviceFacts {
            job: &job.key,
            spec: &spec,
            firmware: &spec.firmware,
            uid: &instance.uid,
            instance: Some(&instance),
            record: None,
        };
        let image = configured.and_then(|configured| configured.flash_image.as_deref());
        let request = request::request(facts, options.attempt.unwrap_or(1), settings, image);
        Ok(Self { job, spec, instance, request })
    }
}

impl CaseOptions {
    /// Returns the device of the cluster, or the example, with the command line's values applied.
    async fn instance(&self, example: &Request) -> Result<Instance, Failure> {
        let device = &example.device;
        let mut namespace = self.namespace.clone().unwrap_or_else(|| example.namespace.clone());
        let (mut name, mut uid, mut nodes) =
            (device.name.clone(), device.uid.clone(), device.nodes.clone());
        let mut properties: BTreeMap<String, String> = device.properties.iter().cloned().collect();
        if let Some(device_name) = &self.device {
            let akri_instance = cluster::instance(device_name, self.namespace.as_deref()).await?;
            (name, uid) = (akri_instance.name_any(), akri_instance.uid().unwrap_or_default());
            namespace = akri_instance.namespace().unwrap_or_default();
            (nodes, properties) = (akri_instance.spec.nodes, akri_instance.spec.broker_properties);
        }
        let option_properties = [
            ("DEVICE", &self.device_type),
            ("HOST_ENDPOINT", &self.endpoint),
            ("VERSION", &self.device_version),
        ];
        properties.extend(
            option_properties
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))),
        );
        for (name, value) in &self.properties {
            match value.as_str() {
                "" => properties.remove(name),
                value => properties.insert(name.clone(), value.to_owned()),
            };
        }
        let properties = properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(Instance::new(&namespace, &name, &uid, nodes, properties))
    }

    /// Returns the FlashJob of the file, or the example's, with the command line's values applied.
    fn job(
        &self,
        file_job: Option<Value>,
        example: &Request,
        instance: &Instance,
        plugin: &str,
    ) -> Result<Value, Failure> {
        let mut job =
            file_job.unwrap_or_else(|| json!({"metadata": {"name": example.job}, "spec": {}}));
        let settings =
            self.settings.as_deref().map(serde_json::from_str::<Map<String, Value>>).transpose();
        let settings = settings.map_err(|error| {
            Failure::usage(format!("--settings is not one JSON object: {error}"))
        })?;
        let defaults = json!({
            "spec": {
                "firmware": example.firmware, "version": example.version, "uuid": [instance.uid],
            },
        });
        let overrides = json!({
            "metadata": {"namespace": instance.namespace},
            "spec": {
                "firmware": self.firmware, "version": self.firmware_version,
                "flashjobPodImage": self.image,
                "settings": settings.map(|settings| json!({plugin: settings})),
            },
        });
        let mut whole = defaults;
        json_patch::merge(&mut whole, &job);
        job = whole;
        json_patch::merge(&mut job, &without_nulls(overrides));
        Ok(job)
    }
}

/// Removes null fields: options that were not given change nothing.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        value => value,
    }
}

fn job(mut job: Value) -> Result<FlashJob, Failure> {
    let kind = job.get("kind").and_then(Value::as_str).unwrap_or("FlashJob");
    if kind != "FlashJob" {
        return Err(Failure::usage(format!("--job names a {kind}, expected a FlashJob")));
    }
    json_patch::merge(
        &mut job,
        &json!({"apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashJob"}),
    );
    let mut job: FlashJob = decode(job)
        .map_err(|error| Failure::usage(format!("the FlashJob cannot be read: {error}")))?;
    job.metadata.uid.get_or_insert_with(|| JOB_UID.to_owned());
    job.metadata.name.get_or_insert_with(|| "example".to_owned());
    Ok(job)
}

fn effective(job: FlashJob) -> Result<(Job, EffectiveSpec), Failure> {
    let job = Job::of(job);
    let spec = job
        .spec
        .clone()
        .map_err(|error| Failure::usage(format!("the FlashJob is refused: {error}")))?;
    Ok((job, spec))
}
