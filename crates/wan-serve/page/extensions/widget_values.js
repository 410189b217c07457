// For ComfyUI's own front end, which reads saved values by position only. Video Helper Suite saves them by name, and
// brings scripts of its own that read them; this does the same for every node.

import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "wan-run.widgetValues",
  beforeRegisterNodeDef(nodeType) {
    const configured = nodeType.prototype.onConfigure;
    nodeType.prototype.onConfigure = function (saved) {
      configured?.apply(this, arguments);
      const values = saved.widgets_values;
      if (!values || Array.isArray(values)) return;
      for (const widget of this.widgets ?? []) {
        if (widget.name in values) widget.value = values[widget.name];
      }
    };
  },
});
