//! Choice of the configured plugin that serves a device type.

use flashjob_types::DeviceType;

use crate::flashjob::observed::PluginView;

/// Returns the plugin that serves a type: the one that names it; or else the one that names the
/// longest prefix of it; or else the first that accepts any type.
#[must_use]
pub fn serving<'a>(plugins: &'a [PluginView], kind: &DeviceType) -> Option<&'a PluginView> {
    let exactness = |plugin: &PluginView, one: bool| {
        let types = plugin.device_types.iter().filter(move |types| types.is_one() == one);
        types.filter_map(|types| types.names(kind)).max()
    };
    let named = plugins.iter().find(|plugin| exactness(plugin, true).is_some());
    // A plugin that was never loaded may turn out to serve the type; until that is known the
    // device waits for it. A plugin that cannot be loaded takes no devices from a plugin that
    // names a prefix of their type.
    let unknown = |loading: bool| {
        plugins.iter().find(|plugin| {
            plugin.ready.is_err()
                && plugin.device_types.is_empty()
                && !plugin.any_type
                && (plugin.is_loading || !loading)
        })
    };
    // The first of several equal ones; max_by_key alone would return the last.
    let by_longest_prefix = || {
        let exact = plugins.iter().rev().map(|plugin| (exactness(plugin, false), plugin));
        let best = exact.max_by_key(|(exactness, _)| *exactness)?;
        best.0.map(|_| best.1)
    };
    let any = || plugins.iter().find(|plugin| plugin.any_type);
    let loading = || unknown(true);
    named.or_else(loading).or_else(by_longest_prefix).or_else(|| unknown(false)).or_else(any)
}
