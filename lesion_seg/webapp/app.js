// The page of lesion_seg. It asks the session in the kernel (lesion_seg/app.py) by numbered messages and draws the answers.
// Names of files are hostile text: everything is put into the page as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const CHUNK = 4 * 2 ** 20; // bytes of an upload in one message
const ZOOM = 1.4;

function add(parent, child) {
  if (child == null || child === false) return;
  if (Array.isArray(child)) child.forEach((c) => add(parent, c));
  else parent.append(child);
}

function fill(node, props, children) {
  for (const [k, v] of Object.entries(props || {})) {
    if (k.startsWith("on")) node.addEventListener(k.slice(2), v);
    else if (k in node && !(node instanceof SVGElement)) node[k] = v;
    else if (v != null && v !== false) node.setAttribute(k, v === true ? "" : v);
  }
  children.forEach((c) => add(node, c));
  return node;
}

const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

// Numbers as a reader wants them.
const percent = (x) => (x * 100).toFixed(x < 0.1 ? 1 : 0) + " %";
// Three digits that count, never an exponent; zeros go only behind the point.
function three(x) {
  if (!(Math.abs(x) < 99.95)) return Math.round(x).toLocaleString("en");
  const places = Math.abs(x) < 1 ? 3 : Math.abs(x) < 9.995 ? 2 : 1;
  const text = x.toFixed(places);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}
const number = (x, unit) => three(x) + " " + unit;
const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0) + " MB";

function areaOf(r) {
  const share = percent(r.area_fraction) + " of the photograph";
  return least(r) + (r.area_mm2 == null ? share : number(r.area_mm2, "mm²") + " · " + share);
}
// A lesion that leaves the photograph is larger than what can be measured.
const least = (r) => (r.touches_frame ? "at least " : "");
const diameterOf = (r) => least(r) + (r.major_diameter_mm == null ? number(r.major_diameter_px, "px") : number(r.major_diameter_mm, "mm"));

// One question at a time to the kernel is one promise here; an error comes back as a sentence for the reader.
function connect(model, onLost, onShaky) {
  const waiting = new Map();
  let last = 0, lost = false;
  model.on("msg:custom", (message, buffers) => {
    const asked = waiting.get(message.id);
    if (!asked) return;
    waiting.delete(message.id);
    if (message.error) asked.reject(new Error(message.error));
    else asked.resolve({ ...message, buffers });
  });
  const end = (why) => {
    if (lost) return;
    lost = true;
    for (const { reject } of waiting.values()) reject(new Error("The session has ended."));
    waiting.clear();
    onLost(why);
  };
  const kernel = model.widget_manager?.kernel;
  const dead = ["restarting", "autorestarting", "dead", "terminating"];
  kernel?.statusChanged?.connect((_, status) => dead.includes(status) && end("stopped"));
  kernel?.connectionStatusChanged?.connect((_, status) => (status === "disconnected" ? end("unreachable") : onShaky(status !== "connected")));
  kernel?.disposed?.connect(() => end("stopped"));
  // A kernel that the server has ended says nothing, so somebody has to look.
  const look = async () => {
    if (lost || !kernel) return;
    const reply = await fetch(`${kernel.serverSettings.baseUrl}api/kernels/${kernel.id}`, { cache: "no-store" }).catch(() => null);
    if (reply?.status === 404) end("stopped");
  };
  setInterval(look, 20000);
  return (what, args = {}, buffers = []) =>
    new Promise((resolve, reject) => {
      if (lost) return reject(new Error("The session has ended: reload the page."));
      waiting.set(++last, { resolve, reject });
      setTimeout((id) => waiting.has(id) && look(), 3000, last);
      model.send({ id: last, do: what, ...args }, undefined, buffers);
    });
}

function save(name, type, parts) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// Two pictures of the same photograph that zoom and pan as one.
class Viewer {
  constructor() {
    this.size = { w: 1, h: 1 };
    this.panes = ["Original", "Result"].map((label) => this.pane(label));
    this.zoomText = h("output", { className: "zoom", ariaLive: "off" }, "100 %");
    const tool = (label, text, act) => h("button", { type: "button", className: "tool", title: label, ariaLabel: label, onclick: act }, text);
    this.tools = h("div", { className: "tools", role: "group", ariaLabel: "Zoom of both pictures" },
      tool("Zoom out", "−", () => this.zoom(1 / ZOOM)), this.zoomText, tool("Zoom in", "+", () => this.zoom(ZOOM)), tool("Fit to view", "Fit", () => this.fit()));
    this.element = h("div", { className: "pair" }, this.panes.map((p) => p.figure));
    new ResizeObserver(() => this.ruler()).observe(this.element);
  }

  pane(label) {
    const image = s("image", { preserveAspectRatio: "none" });
    const heat = s("image", { preserveAspectRatio: "none", class: "heat" });
    const cross = s("g", { class: "cross", visibility: "hidden" }, s("path", { class: "halo" }), s("path", { class: "line" }));
    const kinds = label === "Original" ? [] : ["fill", "border halo", "border line", "truth halo", "truth line", "sure halo", "sure line"];
    const paths = Object.fromEntries(kinds.map((k) => [k, s("path", { class: k, "fill-rule": "evenodd" })]));
    const svg = s("svg", { tabindex: 0, role: "img", "aria-label": label, "aria-keyshortcuts": "+ - 0 ArrowLeft ArrowRight ArrowUp ArrowDown" },
      image, heat, Object.values(paths), cross);
    const bar = h("div", { className: "ruler", hidden: true });
    const figure = h("figure", {}, h("figcaption", {}, label), svg, bar);
    svg.addEventListener("wheel", (e) => { e.preventDefault(); this.zoom(Math.exp(-e.deltaY * 0.002), this.at(svg, e)); }, { passive: false });
    svg.addEventListener("keydown", (e) => this.key(e));
    svg.addEventListener("dblclick", (e) => this.zoom(2, this.at(svg, e)));
    svg.addEventListener("pointerdown", (e) => { svg.setPointerCapture(e.pointerId); this.drag = [e.clientX, e.clientY]; });
    svg.addEventListener("pointerup", () => (this.drag = null));
    svg.addEventListener("pointerleave", () => this.point(null));
    svg.addEventListener("pointermove", (e) => this.move(svg, e));
    return { svg, image, heat, cross, paths, bar, figure };
  }

  at(svg, e) {
    const p = new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [p.x, p.y];
  }

  move(svg, e) {
    if (!this.drag) return this.point(this.at(svg, e));
    const scale = svg.getScreenCTM().a;
    this.pan((this.drag[0] - e.clientX) / scale, (this.drag[1] - e.clientY) / scale);
    this.drag = [e.clientX, e.clientY];
  }

  point(p) {
    for (const { cross } of this.panes) {
      cross.setAttribute("visibility", p ? "visible" : "hidden");
      if (!p) continue;
      const r = this.box.w / 40;
      for (const line of cross.children) line.setAttribute("d", `M${p[0] - r} ${p[1]}h${2 * r}M${p[0]} ${p[1] - r}v${2 * r}`);
    }
  }

  key(e) {
    const step = 0.1 * this.box.w, moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (moves[e.key]) this.pan(...moves[e.key]);
    else if (e.key === "+" || e.key === "=") this.zoom(ZOOM);
    else if (e.key === "-") this.zoom(1 / ZOOM);
    else if (e.key === "0") this.fit();
    else return;
    e.preventDefault();
  }

  open(url, size, spacing, name) {
    Object.assign(this, { size: { w: size[1], h: size[0] }, spacing });
    for (const p of this.panes) {
      for (const i of [p.image, p.heat]) { i.setAttribute("width", this.size.w); i.setAttribute("height", this.size.h); i.removeAttribute("href"); }
      p.image.setAttribute("href", url);
      Object.values(p.paths).forEach((path) => path.setAttribute("d", ""));
    }
    this.panes[0].svg.setAttribute("aria-label", `Original photograph ${name}`);
    this.element.style.setProperty("--ratio", this.size.w / this.size.h);
    this.fit();
  }

  draw(kind, d) {
    const paths = this.panes[1].paths;
    for (const k of [`${kind} halo`, `${kind} line`]) paths[k].setAttribute("d", d || "");
    if (kind === "border") paths.fill.setAttribute("d", d || "");
  }

  heat(url) {
    const node = this.panes[1].heat;
    if (url) node.setAttribute("href", url); else node.removeAttribute("href");
  }

  describe(text) { this.panes[1].svg.setAttribute("aria-label", text); }

  fit() { this.box = { x: 0, y: 0, ...this.size }; this.show(); }

  zoom(factor, about) {
    const b = this.box, w = Math.min(this.size.w, Math.max(this.size.w / 40, b.w / factor)), f = w / b.w;
    const [cx, cy] = about || [b.x + b.w / 2, b.y + b.h / 2];
    this.box = { x: cx - (cx - b.x) * f, y: cy - (cy - b.y) * f, w, h: b.h * f };
    this.pan(0, 0);
  }

  pan(dx, dy) {
    const b = this.box, clamp = (v, most) => Math.max(0, Math.min(most, v));
    b.x = clamp(b.x + dx, this.size.w - b.w);
    b.y = clamp(b.y + dy, this.size.h - b.h);
    this.show();
  }

  show() {
    const { x, y, w, h } = this.box;
    for (const { svg } of this.panes) svg.setAttribute("viewBox", `${x} ${y} ${w} ${h}`);
    this.zoomText.value = Math.round((100 * this.size.w) / w) + " %";
    this.ruler();
  }

  ruler() { // a length that reads well, about a quarter of the picture wide
    for (const { svg, bar } of this.panes) {
      bar.hidden = !this.spacing || !svg.getScreenCTM();
      if (bar.hidden) continue;
      const perMm = svg.getScreenCTM().a / this.spacing[1], most = svg.clientWidth / 4 / perMm;
      const step = 10 ** Math.floor(Math.log10(most)), mm = [5, 2, 1].map((k) => k * step).find((v) => v <= most);
      bar.style.width = mm * perMm + "px";
      bar.textContent = mm + " mm";
    }
  }
}

// A labelled slider; `show` writes its value.
function slider(label, props, show, onInput, onChange) {
  const out = h("output", {}, show(props.value));
  const input = h("input", { type: "range", ...props, oninput: () => { out.value = show(+input.value); onInput(+input.value); },
    onchange: () => onChange && onChange(+input.value) });
  input.put = (v) => { input.value = v; out.value = show(v); };
  return [h("label", { className: "slider" }, h("span", {}, label), input, out), input]; // the input first: a label names the first control in it
}

let helps = 0;
function help(about, ...text) {
  const note = h("p", { className: "note", id: `help-${++helps}`, hidden: true }, ...text);
  const button = h("button", { type: "button", className: "help", ariaLabel: `What is this? ${about}`, ariaExpanded: "false",
    onclick: () => { note.hidden = !note.hidden; button.ariaExpanded = String(!note.hidden); } }, "?");
  button.setAttribute("aria-controls", note.id);
  return [button, note];
}

function section(title, explain, ...content) {
  const [button, note] = explain ? help(title, explain) : [null, null];
  return h("section", {}, h("h3", {}, title, " ", button), note, ...content);
}

const LAYERS = {
  border: ["Border only"],
  std: ["Standard deviation", "How much 20 random variants of the network differ, pixel by pixel.", "0", "0.3 and more"],
  entropy: ["Entropy", "How close their mean is to a coin toss, in bits.", "0", "1 bit"],
  sure: ["Confident part", "Dashed: what is still lesion when each mean is lowered by twice its deviation."],
  gradcam: ["Grad-CAM", "Which places spoke for a lesion. The first map of a session loads PyTorch: some seconds, and several hundred MB of memory.", "little", "much"],
};

function render({ model, el }) {
  document.title = "lesion_seg";
  const live = h("p", { className: "unseen", ariaLive: "polite", role: "status" });
  const say = (text) => (live.textContent = text);
  const alerts = h("div", { className: "alerts" });
  const view = h("main", { tabIndex: -1 });
  const ask = connect(model, ended, shaky);
  const state = { results: new Map(), pictures: new Map(), broken: [], current: null, layer: "border", cancel: false, busy: false };

  function alert(text, kind = "warning") {
    const box = h("div", { className: `alert ${kind}`, role: "alert" }, h("span", { className: "sign", ariaHidden: "true" }, "!"), h("span", {}, text),
      h("button", { type: "button", className: "tool", ariaLabel: "Dismiss this message", onclick: () => box.remove() }, "×"));
    alerts.append(box);
    while (alerts.children.length > 6) alerts.firstChild.remove();
  }

  const guarded = (act) => async (...args) => { try { return await act(...args); } catch (e) { alert(e.message); } };

  const waitingForServer = h("div", { className: "alert", role: "alert", hidden: true }, h("span", { className: "sign", ariaHidden: "true" }, "!"),
    h("span", {}, "The server does not answer. Trying again …"));
  function shaky(on) {
    if (on && !waitingForServer.isConnected) alerts.prepend(waitingForServer);
    waitingForServer.hidden = !on;
  }

  function ended(why) {
    const text = why === "unreachable" ? "The connection to the server is gone." : "This session has ended: the program behind it stopped, or it was not used for a long time.";
    alerts.replaceChildren(h("div", { className: "alert error", role: "alert" }, h("span", { className: "sign", ariaHidden: "true" }, "!"),
      h("span", {}, text + " Files and results that you have not downloaded are gone. Reload the page to start again."),
      h("button", { type: "button", className: "primary", onclick: () => location.reload() }, "Reload the page")));
    root.classList.add("ended");
  }

  // ---- getting files in
  const picker = h("input", { type: "file", multiple: true, className: "unseen", id: "files", ariaLabel: "Choose photographs or DICOM files",
    accept: "image/*,.dcm,.dicom,application/dicom", onchange: () => { const files = [...picker.files]; picker.value = ""; take(files); } });
  const choose = () => picker.click();

  function fits(file) {
    if (file.size <= state.limits.file_mb * 1e6) return true;
    refuse(file.name, `${file.name} has ${megabytes(file.size)}, more than the limit of ${state.limits.file_mb} MB, and was not read.`);
    return false;
  }

  function refuse(name, reason) { state.broken.push({ name, reason }); alert(reason); }

  async function upload(file) {
    let reply, token = null;
    for (let at = 0; at === 0 || at < file.size; at += CHUNK) {
      const part = await file.slice(at, at + CHUNK).arrayBuffer();
      reply = await ask("put", { name: file.name, size: file.size, token, at }, [part]);
      token = reply.token;
    }
    return reply;
  }

  const take = guarded(async (files) => {
    if (!files.length || state.busy) return;
    const room = state.limits.files - state.results.size;
    if (files.length > room) alert(`${files.length} files are more than the ${room} that this session still takes: only the first ${room} are read.`);
    const chosen = files.slice(0, Math.max(0, room)).filter(fits);
    await work(chosen.map((f) => ({ name: f.name, put: () => upload(f) })));
  });

  const example = (name) => guarded(async () => {
    if (state.busy) return;
    waitingView("the example");
    const made = await ask("example", { name }).catch((e) => { start(); throw e; });
    await work(made.files.map((f) => ({ name: f.name, put: async () => f })));
  });

  // Upload and segment one file after the other; the kernel is never more than one question behind, so cancelling is immediate.
  async function work(jobs) {
    if (!jobs.length) return state.results.size > 1 ? list() : undefined;
    Object.assign(state, { busy: true, cancel: false });
    root.classList.add("busy");
    const many = jobs.length > 1, progress = many ? list(jobs.length) : (say("Reading " + jobs[0].name), null);
    if (!many) waitingView(jobs[0].name);
    let shown = null;
    for (const [i, job] of jobs.entries()) {
      if (state.cancel) break;
      progress?.step(i, job.name);
      try {
        const file = await job.put();
        if (file.kind === "photograph") shown = await one(file.key);
        if (file.partner) await one(file.partner);
        if (many) cards();
      } catch (e) { refuse(job.name, e.message); if (many) cards(); }
    }
    const stopped = state.cancel;
    Object.assign(state, { busy: false, cancel: false });
    root.classList.remove("busy");
    if (!many && shown) return single(shown.key);
    if (state.results.size === 1 && !state.broken.length) return single([...state.results.keys()][0]);
    if (!state.results.size) return start();
    list();
    say(stopped ? "Stopped." : `${state.results.size} photographs are done.`);
  }

  async function one(key) {
    const r = await ask("card", { key });
    if (r.buffers.length && !state.pictures.has(key)) state.pictures.set(key, URL.createObjectURL(new Blob([r.buffers[0]], { type: "image/jpeg" })));
    state.results.set(key, r.result);
    return r.result;
  }

  // ---- the start
  function dropZone() {
    const l = state.limits;
    return h("div", { className: "drop" },
      h("p", { className: "big" }, "Drop dermoscopic photographs or DICOM files here"),
      h("button", { type: "button", className: "primary", onclick: choose }, "Choose files"),
      h("p", { className: "muted" }, `JPEG, PNG, TIFF, BMP, WebP or DICOM · up to ${l.file_mb} MB each, ${l.files} files. A mask beside a photograph (same name, or with _mask) is scored against.`));
  }

  function start() {
    state.current = null;
    const tiles = state.examples.map((e) => h("button", { type: "button", className: "tile", onclick: example(e.name) },
      h("img", { alt: "", src: e.url || "", className: e.url ? "" : "empty" }), h("b", {}, e.title), h("span", { className: "muted" }, e.text)));
    view.replaceChildren(h("div", { className: "start" },
      h("div", {}, h("h1", {}, "Where does the lesion end?"),
        h("p", { className: "lead" }, "The border of a skin lesion in a dermoscopic photograph, how sure the network is of it, and which places spoke for it.")),
      dropZone(), h("section", { ariaLabel: "Examples" }, h("h2", {}, "Or try an example"), h("p", { className: "muted" }, "Drawn by a program, with a known border; nobody’s skin."), h("div", { className: "tiles" }, tiles)),
      brokenList()));
  }

  function waitingView(name) {
    view.replaceChildren(h("div", { className: "waiting" }, h("div", { className: "spinner", ariaHidden: "true" }), h("p", {}, `Reading ${name} …`)));
  }

  function brokenList() {
    if (!state.broken.length) return null;
    return h("section", { className: "broken" }, h("h2", {}, `Not read (${state.broken.length})`),
      h("ul", {}, state.broken.map((b) => h("li", {}, b.reason.includes(b.name) ? b.reason : [h("b", {}, b.name), " ", b.reason]))));
  }

  // ---- one photograph
  const viewer = new Viewer();
  let panel = {};

  function chip(r) {
    return r.needs_review ? h("span", { className: "chip look" }, h("span", { ariaHidden: "true" }, "▲ "), "Needs review")
      : r.needs_review === false ? h("span", { className: "chip fine" }, h("span", { ariaHidden: "true" }, "✓ "), "No flag")
        : h("span", { className: "chip" }, "Not judged");
  }

  function facts(r) {
    const rows = [["Area", areaOf(r)], ["Largest diameter", diameterOf(r)],
      ["Mean probability", r.mean_probability == null ? null : r.mean_probability.toFixed(2)],
      ["Uncertainty score", r.doubt == null ? null : `${r.doubt.toFixed(3)} (review above ${r.review_above.toFixed(3)})`],
      ["Dice, Jaccard against the mask", r.dice == null ? r.truth_error : `${r.dice.toFixed(3)}, ${r.jaccard.toFixed(3)}`]];
    return rows.filter(([, v]) => v != null).map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v)));
  }

  function verdict(r) {
    panel.verdict.replaceChildren(chip(r), h("p", {}, r.reason));
    panel.facts.replaceChildren(...facts(r));
    viewer.describe(`Result for ${r.name}: ${r.empty ? "no lesion" : "lesion " + areaOf(r) + ", largest diameter " + diameterOf(r)}. ${r.reason}`);
  }

  const single = guarded(async (key) => {
    const known = state.results.get(key);
    state.current = key;
    waitingView(known ? known.name : "the photograph");
    const r = await ask("show", { key });
    state.results.set(key, r.result);
    const url = URL.createObjectURL(new Blob([r.buffers[0]], { type: "image/jpeg" }));
    if (state.url) URL.revokeObjectURL(state.url);
    state.url = url;
    layout(r.result);
    viewer.open(url, [r.result.height, r.result.width], r.result.spacing, r.result.name);
    viewer.draw("border", r.border);
    viewer.draw("truth", r.truth);
    verdict(r.result);
    say(`${r.result.name}: ${r.result.empty ? "no lesion found" : "lesion " + areaOf(r.result)}. ${r.result.needs_review ? "Needs review." : ""}`);
    view.focus({ preventScroll: true });
    if (state.layer !== "border" && state.layer !== "gradcam") await layer(state.layer);
    else { state.layer = "border"; panel.radios.border.checked = true; legend(); }
  });

  function layout(r) {
    panel = { verdict: h("div", { className: "verdict" }), facts: h("dl", {}), radios: {}, legend: h("div", { className: "legend" }) };
    const several = state.results.size > 1;
    view.replaceChildren(h("div", { className: "single" },
      h("div", { className: "stage" },
        h("div", { className: "bar" },
          several && h("button", { type: "button", onclick: () => list() }, "‹ All photographs"),
          h("h2", { title: r.name }, r.name), h("span", { className: "muted" }, `${r.width} × ${r.height} px`), viewer.tools,
          h("button", { type: "button", onclick: choose }, "Open another")),
        viewer.element, panel.legend, h("div", { className: "below" }, saveSection(r), headerSection(r))),
      h("aside", { ariaLabel: "Result and settings" }, panel.verdict, panel.facts, borderSection(r), layerSection())));
  }

  // The slider asks for the border at its newest value only; questions never queue up.
  let wanted = null, asking = false;
  async function follow() {
    if (asking) return;
    asking = true;
    while (wanted !== null) {
      const threshold = wanted;
      wanted = null;
      try {
        const r = await ask("live", { key: state.current, threshold });
        viewer.draw("border", r.border);
        if (state.layer === "sure") viewer.draw("sure", r.sure);
        Object.assign(state.results.get(state.current), r.result);
        panel.facts.replaceChildren(...facts(state.results.get(state.current)));
        root.dataset.threshold = threshold;
      } catch (e) { alert(e.message); }
    }
    asking = false;
  }

  const settle = guarded(async (threshold) => {
    state.cut = threshold;
    const r = await ask("cut", { key: state.current, threshold });
    if (r.result.key !== state.current) return;
    state.results.set(state.current, r.result);
    verdict(r.result);
  });

  function borderSection(r) {
    const style = (name) => (v) => root.style.setProperty(name, v);
    const [cut, cutInput] = slider("Threshold", { min: 0.05, max: 0.95, step: 0.005, value: r.threshold, id: "threshold" }, (v) => (+v).toFixed(3),
      (v) => { wanted = v; follow(); }, settle);
    const reset = h("button", { type: "button", className: "link", onclick: () => { cutInput.put(state.threshold); wanted = state.threshold; follow(); settle(state.threshold); } },
      `Back to the model’s own, ${state.threshold.toFixed(3)}`);
    const [width] = slider("Line width", { min: 1, max: 8, step: 0.5, value: look("width", 2.5) }, (v) => v + " px", (v) => keep("width", v, style("--width")));
    const [opacity] = slider("Line opacity", { min: 0.1, max: 1, step: 0.05, value: look("opacity", 1) }, (v) => Math.round(v * 100) + " %", (v) => keep("opacity", v, style("--opacity")));
    const fillBox = h("input", { type: "checkbox", checked: look("fill", 0) > 0, onchange: () => keep("fill", fillBox.checked ? 0.25 : 0, style("--fill")) });
    return section("Border", "A pixel belongs to the lesion from this probability on. The network is not asked again, so the border follows the slider.", cut, reset, width, opacity,
      h("label", { className: "check" }, fillBox, " Fill the lesion"));
  }

  const looks = { width: 2.5, opacity: 1, fill: 0 };
  const look = (name) => looks[name];
  const keep = (name, v, apply) => { looks[name] = v; apply(v); };

  // ---- uncertainty and Grad-CAM
  function layerSection() {
    const radio = (id) => {
      const input = (panel.radios[id] = h("input", { type: "radio", name: "layer", value: id, checked: state.layer === id, onchange: () => layer(id) }));
      return h("label", { className: "check" }, input, " " + LAYERS[id][0]);
    };
    panel.target = h("select", { ariaLabel: "What Grad-CAM explains", onchange: () => layer("gradcam") },
      h("option", { value: "lesion" }, "for the lesion"), h("option", { value: "border" }, "for its border"));
    const [strength] = slider("Map opacity", { min: 0.1, max: 1, step: 0.05, value: looks.map || 0.75 }, (v) => Math.round(v * 100) + " %",
      (v) => keep("map", v, (x) => root.style.setProperty("--map", x)));
    return section("Show on the result", "Uncertainty asks the network 20 times with parts of it switched off at random (MC dropout). Grad-CAM weighs what a late layer saw by how much it spoke for the lesion. Both describe the network, not the skin.",
      h("div", { role: "radiogroup", ariaLabel: "Map on the result" }, Object.keys(LAYERS).map(radio)), panel.target, strength);
  }

  function legend(extra) {
    const [title, text, low, high] = LAYERS[state.layer];
    panel.target.hidden = state.layer !== "gradcam";
    panel.legend.replaceChildren(...(state.layer === "border" ? [] : [h("b", {}, title), high && h("span", { className: "scale" }, low, h("i", { className: "ramp", ariaHidden: "true" }), high),
      h("span", { className: "muted" }, extra || text)]).filter(Boolean));
  }

  const layer = guarded(async (id) => {
    const key = state.current;
    state.layer = id;
    legend(id === "border" ? "" : id === "gradcam" ? "Working … the first map of a session loads PyTorch, which takes some seconds." : "Asking the network 20 times …");
    if (id === "border") { viewer.heat(null); viewer.draw("sure", ""); return; }
    try {
      const r = id === "gradcam" ? await ask("gradcam", { key, target: panel.target.value }) : await ask("uncertainty", { key });
      if (state.layer !== id || state.current !== key) return;
      const png = { std: 0, entropy: 1, gradcam: 0 }[id];
      viewer.heat(png === undefined ? null : URL.createObjectURL(new Blob([r.buffers[png]], { type: "image/png" })));
      viewer.draw("sure", id === "sure" ? r.sure : "");
      legend(r.texts[id]);
      say(r.texts[id]);
    } catch (e) { state.layer = "border"; panel.radios.border.checked = true; viewer.heat(null); legend(); throw e; }
  });

  // ---- taking results away
  const download = (key, kind) => guarded(async () => {
    const r = await ask("download", { key, kind });
    save(r.name, r.mime, r.buffers);
    say(`${r.name} is saved.`);
  });

  function saveSection(r) {
    const kinds = [["mask", "Mask (PNG)"], ["overlay", "Overlay (JPEG)"], ["json", "Measures (JSON)"], ["geojson", "Border (GeoJSON)"], ...(r.dicom ? [["seg", "DICOM SEG"]] : [])];
    return section("Take away", "At the photograph’s own resolution, cut at the threshold above.",
      h("div", { className: "buttons" }, kinds.map(([kind, label]) => h("button", { type: "button", onclick: download(r.key, kind) }, label))));
  }

  function headerSection(r) {
    if (!r.dicom) return null;
    const table = h("dl", { className: "header" });
    const show = (facts) => table.replaceChildren(...Object.entries(facts).filter(([, v]) => v != null).map(([k, v]) =>
      h("div", {}, h("dt", {}, k.replaceAll("_", " ")), h("dd", {}, Array.isArray(v) ? v.join(", ") : String(v)))));
    show(r.dicom);
    const box = h("input", { type: "checkbox", onchange: guarded(async () => show((await ask("header", { key: r.key, identifying: box.checked })).facts)) });
    return h("details", {}, h("summary", {}, "DICOM header"), h("label", { className: "check" }, box, " Show patient, dates and serial number"), table);
  }

  // ---- many photographs
  let grid = null, listing = {};

  const order = (a, b) => (b.needs_review === true) - (a.needs_review === true) || (b.doubt ?? 0) - (a.doubt ?? 0);

  function card(r) {
    return h("button", { type: "button", className: "card", onclick: () => !state.busy && single(r.key) },
      s("svg", { viewBox: `0 0 ${r.width} ${r.height}`, role: "img", "aria-label": `Border on ${r.name}` },
        s("image", { href: state.pictures.get(r.key), width: r.width, height: r.height, preserveAspectRatio: "none" }),
        s("path", { class: "border halo", d: r.path }), s("path", { class: "border line", d: r.path })),
      h("span", { className: "name", title: r.name }, r.name), chip(r),
      h("span", { className: "muted" }, r.empty ? "no lesion found" : areaOf(r)),
      r.dice != null && h("span", { className: "muted" }, `Dice ${r.dice.toFixed(3)} · Jaccard ${r.jaccard.toFixed(3)}`));
  }

  function cards() {
    if (!grid) return;
    const all = [...state.results.values()].sort(order), flagged = all.filter((r) => r.needs_review).length;
    grid.replaceChildren(...all.map(card));
    listing.count.textContent = `${all.length} photographs, ${flagged} for review` + (state.broken.length ? `, ${state.broken.length} not read` : "");
    listing.broken.replaceChildren(...[brokenList()].filter(Boolean));
  }

  function list(total) {
    state.current = null;
    grid = h("div", { className: "cards" });
    const bar = h("progress", { max: total || 1, value: 0, ariaLabel: "Progress" }), text = h("span", { className: "muted" });
    const stop = h("button", { type: "button", onclick: () => { state.cancel = true; text.textContent = "Stopping …"; } }, "Cancel");
    const overlays = h("input", { type: "checkbox", checked: true });
    listing = { count: h("h2"), broken: h("div"), progress: h("div", { className: "progress", hidden: !total }, bar, text, stop) };
    const ready = h("div", { className: "buttons", hidden: !!total },
      h("button", { type: "button", onclick: table }, "Summary (CSV)"), h("button", { type: "button", className: "primary", onclick: () => archive(overlays.checked) }, "Everything (ZIP)"),
      h("label", { className: "check" }, overlays, " with overlays"), h("button", { type: "button", onclick: choose }, "Add files"),
      h("button", { type: "button", onclick: clear }, "Start over"));
    view.replaceChildren(h("div", { className: "many" }, h("div", { className: "bar" }, listing.count, ready), listing.progress, grid, listing.broken));
    cards();
    if (!total) renew();
    return { step: (i, name) => { bar.max = total; bar.value = i; text.textContent = `${i + 1} of ${total}: ${name}`; } };
  }

  // After the threshold was moved on one photograph, the others follow when the list is seen again.
  const renew = guarded(async () => {
    const mine = grid;
    for (const r of [...state.results.values()]) {
      if (grid !== mine || state.current) return;
      if (r.threshold !== state.cut) { await one(r.key); if (grid === mine) cards(); }
    }
  });

  const clear = guarded(async () => {
    await ask("clear");
    state.results.clear(); state.pictures.clear(); state.broken = [];
    start();
  });

  const table = guarded(async () => { const r = await ask("table"); save(r.name, "text/csv", r.buffers); });

  const archive = guarded(async (overlays) => {
    const keys = [...state.results.keys()];
    state.cancel = false;
    listing.progress.hidden = false;
    const [bar, text] = listing.progress.children;
    bar.max = keys.length + 1;
    try {
      await ask("zip_start", { overlays });
      for (const [i, key] of keys.entries()) {
        if (state.cancel) return say("Stopped.");
        bar.value = i;
        text.textContent = `Packing ${i + 1} of ${keys.length}`;
        await ask("zip_add", { key });
      }
      const made = await ask("zip_end"), parts = [];
      for (let i = 0; i < made.parts; i++) parts.push((await ask("zip_take", { part: i })).buffers[0]);
      save(made.name, "application/zip", parts);
      say(`${made.name} is saved.`);
    } finally { listing.progress.hidden = true; state.cancel = false; }
  });

  // ---- the frame
  const themes = ["auto", "light", "dark"];
  const theme = h("select", { ariaLabel: "Colours of the page", onchange: () => paint(theme.value) },
    themes.map((t) => h("option", { value: t }, { auto: "As the system", light: "Light", dark: "Dark" }[t])));
  function paint(t) {
    document.documentElement.dataset.theme = t;
    theme.value = t;
    try { localStorage.setItem("lesion_seg.theme", t); } catch { /* private window */ }
  }

  const bundles = h("select", { ariaLabel: "Model", onchange: guarded(async () => {
    const r = await ask("use", { bundle: bundles.value });
    state.threshold = state.cut = r.threshold;
    const again = [...state.results.keys()], open = state.current;
    if (again.length) await work(again.map((key) => ({ name: state.results.get(key).name, put: async () => ({ kind: "photograph", key }) })));
    if (open) await single(open);
  }) });

  const home = h("button", { type: "button", className: "brand", onclick: () => !state.busy && (state.results.size > 1 ? list() : start()) }, "lesion_seg");
  const root = h("div", { className: "lesion" },
    h("header", {}, home, h("span", { className: "grow" }), h("label", {}, "Model ", bundles), h("label", {}, "Colours ", theme)),
    alerts, view, picker, live,
    h("footer", {}, "A tool for research and for a second look, not a medical device. Files stay in the memory of this session and are gone when the page is closed."));

  let depth = 0;
  const veil = (on) => root.classList.toggle("dragging", on);
  root.addEventListener("dragenter", (e) => { e.preventDefault(); depth++; veil(true); });
  root.addEventListener("dragover", (e) => e.preventDefault());
  root.addEventListener("dragleave", () => veil(--depth > 0));
  root.addEventListener("drop", (e) => { e.preventDefault(); depth = 0; veil(false); take([...e.dataTransfer.files]); });
  window.addEventListener("unhandledrejection", () => alert("Something went wrong on the page: reload it."));
  window.addEventListener("error", (e) => e.message?.startsWith("ResizeObserver") || alert("Something went wrong on the page: reload it."));

  el.append(root);
  let stored = "auto";
  try { stored = localStorage.getItem("lesion_seg.theme") || "auto"; } catch { /* private window */ }
  paint(themes.includes(stored) ? stored : "auto");

  Object.assign(state, model.get("setup"));
  state.cut = state.threshold;
  bundles.replaceChildren(...state.bundles.map((b) => h("option", { value: b }, b)));
  state.examples.forEach((e, i) => { const png = model.get("thumbs")[i]; e.url = png && URL.createObjectURL(new Blob([png], { type: "image/jpeg" })); });
  start();
  root.dataset.ready = "yes";
}

export default { render };
