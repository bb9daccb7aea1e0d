//! The installation that this operator is part of: its namespace, and what it watches. Names
//! cluster-scoped objects such that several installations in one cluster do not conflict. Pure.

use std::collections::BTreeMap;

use flashjob_api::{DevicePlugin, INSTALLATION};
use kube::ResourceExt;

/// One installation of the operator, with all its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The operator's own namespace, which no other installation has.
    pub namespace: String,
    /// The only namespace that is watched; None if all are.
    pub watched: Option<String>,
    /// ConfigMap, in its namespace, from which its configuration is mounted.
    pub config_map: String,
}

/// Owner of a DevicePlugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This installation.
    Own,
    /// Not labelled: written by an operator older than the label, or by hand.
    Nobody,
    /// The installation in this namespace.
    Other(String),
}

impl Installation {
    /// Returns the name of the DevicePlugin of a plugin.
    #[must_use]
    pub fn object_name(&self, plugin: &str) -> String {
        match &self.watched {
            // DevicePlugins have no namespace of their own. A plugin name is a DNS label and has
            // no dot, so the two forms cannot collide.
            Some(namespace) => format!("{plugin}.{namespace}"),
            None => plugin.to_owned(),
        }
    }

    /// Returns the labels of the DevicePlugins of this installation.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(INSTALLATION.to_owned(), self.namespace.clone())])
    }

    /// Returns the owner of a DevicePlugin.
    #[must_use]
    pub fn owner(&self, object: &DevicePlugin) -> Owner {
        match object.labels().get(INSTALLATION) {
            None => Owner::Nobody,
            Some(namespace) if *namespace == self.namespace => Owner::Own,
            Some(namespace) => Owner::Other(namespace.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use flashjob_api::DevicePluginSpec;

    use super::*;

    #[test]
    fn installations_of_one_namespace_name_their_objects_apart_and_know_their_own() {
        let installation = |namespace: &str, watched: Option<&str>| Installation {
            namespace: namespace.to_owned(),
            watched: watched.map(str::to_owned),
            config_map: "config".to_owned(),
        };
        let all = installation("flashjob-system", None);
        let one = installation("north-system", Some("north"));
        assert_eq!(all.object_name("esp32"), "esp32");
        assert_eq!(one.object_name("esp32"), "esp32.north");
        let mut object = DevicePlugin::new("esp32", DevicePluginSpec::default());
        assert_eq!(all.owner(&object), Owner::Nobody);
        object.metadata.labels = Some(one.labels());
        assert_eq!(one.owner(&object), Owner::Own);
        assert_eq!(all.owner(&object), Owner::Other("north-system".into()));
    }
}
