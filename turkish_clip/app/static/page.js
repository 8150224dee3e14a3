// The sections of the page; what is shown follows the address after "#", so that going back works.

import { ask, dropping, failed, follow, h, icon, note, panel, picker, progress, say, skeleton, upload } from "./dom.js";

const main = document.getElementById("main");
const bar = document.getElementById("bar");
const nav = document.getElementById("nav");
const menu = document.getElementById("menu");
const viewer = document.getElementById("viewer");
const words = document.getElementById("words");
const without = document.getElementById("without");
const chip = document.getElementById("chip");
const images = new Map(); // address of the thumbnail of an upload, by its name
let state = null;
let turn = 0; // of the address: answers to an earlier one are dropped

const SECTIONS = [
  { id: "fotograflar", name: "Fotoğraflar", symbol: "photos", needs: "index", show: showNewest },
  { id: "filtre", name: "Filtre", symbol: "filter", needs: "index", show: showFilter },
  { id: "tekrarlar", name: "Tekrarlar", symbol: "copies", needs: "index", show: showDuplicates },
  { id: "klasorler", name: "Klasörler", symbol: "folder", needs: "folders", show: showFolders },
  { id: "siniflandir", name: "Sınıflandır", symbol: "tag", rest: true, show: showClassify },
  { id: "karsilastir", name: "Karşılaştır", symbol: "table", rest: true, show: showCompare },
  { id: "hakkinda", name: "Hakkında", symbol: "info", rest: true, show: showAbout },
];

const available = () => SECTIONS.filter(({ needs }) => !needs || (needs === "index" ? state.images !== null : state.can_index));

// The address

function address() {
  const [id, query = ""] = location.hash.slice(1).split("?");
  return { id, given: new URLSearchParams(query) };
}

function go(id, given = {}) {
  const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value)).toString();
  const hash = `#${id}${query ? `?${query}` : ""}`;
  if (location.hash === hash) show();
  else location.hash = hash;
}

async function show() {
  const mine = ++turn;
  const current = () => mine === turn;
  if (viewer.open) {
    viewer.close();
    main.focus({ preventScroll: true });
  }
  menu.hidden = true;
  const { id, given } = address();
  const section = id === "ara" ? null : available().find((one) => one.id === id) ?? available()[0];
  const shown = section?.id ?? "fotograflar";
  for (const link of document.querySelectorAll("#nav a, #menu a")) {
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const rest = section?.rest;
  const more = nav.querySelector("button");
  if (more) {
    more.setAttribute("aria-expanded", "false");
    if (rest) more.setAttribute("aria-current", "page");
    else more.removeAttribute("aria-current");
  }
  fillBar(id === "ara" ? given : new URLSearchParams());
  window.scrollTo(0, 0);
  if (id === "ara") showSearch(given, current);
  else section.show(current);
}

function title(text, heading = text) {
  document.title = text;
  return h("h1", {}, heading);
}

// The bar

function fillBar(given) {
  words.value = given.get("soz") ?? "";
  without.value = given.get("haric") ?? "";
  openWithout(Boolean(without.value));
  setImage(given.get("resim"));
}

function setImage(name) {
  chip.hidden = !name;
  chip.dataset.name = name ?? "";
  if (name) chip.querySelector("img").src = images.get(name) ?? `thumbnail/${name}`;
}

function openWithout(open) {
  bar.classList.toggle("open", open);
  document.getElementById("toggle-without").setAttribute("aria-expanded", String(open));
}

async function takeImage(files) {
  const file = [...files].find((one) => one.type.startsWith("image/")) ?? files[0];
  say("Resim yükleniyor…");
  bar.setAttribute("aria-busy", "true");
  try {
    const one = await upload(file);
    images.set(one.id, one.url);
    go("ara", { soz: words.value.trim(), haric: without.value.trim(), resim: one.id });
  } catch (error) {
    turn++;
    main.replaceChildren(title("Olmadı", "Resimle arama"), failed(error));
  }
  bar.removeAttribute("aria-busy");
}

function startBar() {
  const file = document.getElementById("image-file");
  bar.hidden = state.images === null;
  bar.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = { soz: words.value.trim(), haric: without.value.trim(), resim: chip.dataset.name };
    words.blur();
    if (given.soz || given.haric || given.resim) go("ara", given);
    else words.focus();
  });
  document.getElementById("toggle-without").addEventListener("click", () => {
    const open = !bar.classList.contains("open");
    openWithout(open);
    if (open) without.focus();
  });
  document.getElementById("add-image").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files.length) takeImage(file.files);
    file.value = "";
  });
  document.getElementById("no-image").addEventListener("click", () => {
    setImage(null);
    if (words.value.trim()) bar.requestSubmit();
    else go("fotograflar");
    words.focus();
  });
  dropping(bar, takeImage);
  document.addEventListener("paste", (event) => {
    if (!bar.hidden && event.clipboardData.files.length) takeImage(event.clipboardData.files);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !bar.hidden && !viewer.open && !event.target.closest("input, textarea")) {
      event.preventDefault();
      words.focus();
    }
  });
}

// Images

function tile(photo, list) {
  const label = photo.fit ? `${photo.name}. ${photo.fit}` : photo.name;
  const badge = photo.badge ?? (photo.fits === false && photo.marked ? "pek uymuyor" : null);
  return h(
    "li",
    {},
    h(
      "button",
      { class: "tile", type: "button", "data-id": photo.id, "aria-label": label, onclick: () => openViewer(list, list.indexOf(photo)) },
      h("img", { src: `thumbnail/${photo.id}`, alt: "", loading: "lazy", decoding: "async" }),
      badge ? h("span", { class: "badge", "aria-hidden": "true" }, badge) : null,
    ),
  );
}

/** Pages of images below `place`; `ask` gives a page from an offset on, `head` what stands above the first. */
async function pages(place, current, load, { head = () => [], empty, byMonth = false, counted = "fotoğraf" }) {
  const list = [];
  const body = h("div", {});
  const more = h("div", { class: "more-row" });
  place.replaceChildren(skeleton());
  say("Fotoğraflar geliyor…");
  let gone = 0;
  const add = (photos) => {
    for (const photo of photos) {
      list.push(photo);
      const month = byMonth ? photo.month : "";
      let grid = body.lastElementChild?.querySelector("ul");
      if (!grid || (body.lastElementChild.dataset.month ?? "") !== month) {
        grid = h("ul", { class: "grid" });
        body.append(h("section", { "data-month": month }, byMonth ? h("h2", {}, month) : null, grid));
      }
      grid.append(tile(photo, list));
    }
  };
  const step = async (offset) => {
    const page = await load(offset);
    if (!current()) return;
    gone += page.gone;
    if (!offset) place.replaceChildren(...head(page), body, more);
    const first = list.length;
    for (const photo of page.photos) photo.marked = page.fits !== false;  // where none fits, that is said once
    add(page.photos);
    more.replaceChildren();
    if (page.more) {
      const button = h(
        "button",
        {
          class: "button",
          type: "button",
          onclick: async () => {
            button.disabled = true;
            button.textContent = "Geliyor…";
            try {
              await step(page.next);
              if (current()) body.querySelectorAll(".tile")[first + page.photos.length]?.focus({ preventScroll: true });
            } catch (error) {
              if (current()) more.replaceChildren(failed(error, () => pages(place, current, load, { head, empty, byMonth, counted })));
            }
          },
        },
        "Daha fazla göster",
      );
      more.append(button);
    }
    if (!list.length && !page.more) place.append(gone ? panel(GONE) : empty);
    else if (gone) more.append(h("p", { class: "lead" }, ` ${gone} dosya artık yerinde değil.`));
    say(list.length ? `${list.length} ${counted} gösteriliyor.` : "Bir şey bulunamadı.");
  };
  try {
    await step(0);
  } catch (error) {
    if (current()) place.replaceChildren(failed(error, () => pages(place, current, load, { head, empty, byMonth, counted })));
  }
}

const GONE = {
  title: "Dosyalar yerinde değil",
  text: "Bulunan fotoğrafların dosyaları taşınmış ya da silinmiş. Klasörü yeniden dizine alın.",
  symbol: "folder",
};

function emptyIndex() {
  return panel({
    title: "Henüz fotoğraf yok",
    text: state.can_index
      ? `“${state.folder}” klasörü dizine alınınca fotoğraflar burada görünür ve Türkçe sözlerle aranır.`
      : "Dizin boş. turkish-clip index komutuyla bir klasörü dizine alın.",
    action: state.can_index ? "Klasörü dizine al" : null,
    onaction: async () => {
      try {
        await ask("add-folder", { below: "" });
      } catch {
        /* the section says why */
      }
      go("klasorler");
    },
    symbol: "photos",
  });
}

async function showNewest(current) {
  const place = h("div", {});
  main.replaceChildren(title("Fotoğraflar"), ...state.notes.map((text) => note(text, "warning")), place);
  await pages(place, current, (offset) => ask("newest", { offset }), { empty: emptyIndex(), byMonth: true });
}

async function showSearch(given, current) {
  const asked = { words: given.get("soz") ?? "", without: given.get("haric") ?? "", image: given.get("resim") ?? "" };
  const parts = [asked.words && `“${asked.words}”`, asked.image && (asked.words ? "ve bu resme benzer" : "Bu resmin benzerleri")];
  const away = asked.without.split(",").map((part) => part.trim()).filter(Boolean).join(", ");
  const heading = [parts.filter(Boolean).join(" "), away && `${away} hariç`].filter(Boolean).join(", ");
  const place = h("div", {});
  main.replaceChildren(title(`${asked.words || "Benzerler"} – Fotoğraflar`, heading || "Arama"), place);
  const head = (page) => {
    const said = page.notes.map((text) => note(text, "warning"));
    if (page.understood && page.fits === false) {
      said.unshift(note("Aradığınıza uyan bir fotoğraf bulunamadı. Aşağıdakiler yalnızca en yakınları.", "warning"));
    }
    return [...said, ...state.notes.map((text) => note(text, "warning"))];
  };
  await pages(place, current, (offset) => ask("search", { ...asked, offset }), { head, empty: panel({ title: "Bir şey bulunamadı", text: "Başka sözlerle deneyin.", symbol: "search" }), counted: "sonuç" });
}

// One image

let open = { list: [], place: 0, turn: 0 };

function openViewer(list, place) {
  open = { list, place, turn };
  drawViewer();
  if (!viewer.open) viewer.showModal();
  viewer.querySelector(".close").focus();
}

function turnTo(step) {
  const place = open.place + step;
  if (place < 0 || place >= open.list.length) return;
  open.place = place;
  const back = document.activeElement?.dataset.step;
  drawViewer();
  viewer.querySelector(`[data-step="${back}"]:not([hidden])`)?.focus() ?? viewer.querySelector(".close").focus();
}

function drawViewer() {
  const photo = open.list[open.place];
  const image = h("img", { src: `view/${photo.id}`, alt: photo.name });
  const facts = h("dl", {}, row("Klasör", photo.folder), (photo.rows ?? []).map(([name, value]) => row(name, value)));
  const stage = h(
    "div",
    { class: "stage" },
    image,
    h("button", { class: "icon close", type: "button", "aria-label": "Kapat", onclick: () => viewer.close() }, icon("close")),
    h("button", { class: "icon previous", type: "button", "data-step": -1, hidden: open.place === 0, "aria-label": "Önceki", onclick: () => turnTo(-1) }, icon("left")),
    h("button", { class: "icon next", type: "button", "data-step": 1, hidden: open.place === open.list.length - 1, "aria-label": "Sonraki", onclick: () => turnTo(1) }, icon("right")),
  );
  image.addEventListener("error", () => image.replaceWith(h("p", {}, "Bu resim açılamadı: dosya taşınmış ya da bozulmuş olabilir.")));
  const details = ask("details", { name: photo.id }).catch(() => null);
  const loaded = new Promise((done) => image.addEventListener("load", done));
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 200 && image.naturalHeight < 200));
  details.then((found) => {
    if (!found || open.list[open.place] !== photo) return;
    const size = row("Çözünürlük", "");
    size.hidden = true;
    facts.append(size, ...found.rows.map(([name, value]) => row(name, value)), row("Yol", photo.path));
    loaded.then(() => {
      size.hidden = found.copy;
      size.lastChild.textContent = `${image.naturalWidth} × ${image.naturalHeight}`;
    });
  });
  const score = photo.score ? ` (benzerlik ${photo.score})` : "";
  const side = h(
    "div",
    { class: "facts", tabindex: 0, role: "region", "aria-label": "Fotoğrafın bilgileri" },
    h("h2", { id: "viewer-name" }, photo.name),
    h("p", { class: "fit" }, photo.fit ? `${photo.fit}${score}` : ""),
    h(
      "div",
      { class: "row" },
      h("a", { class: "button primary", href: `#ara?resim=${photo.id}` }, icon("similar"), "Benzerleri"),
      h("a", { class: "button", href: `original/${photo.id}`, download: photo.name }, icon("download"), "İndir"),
    ),
    facts,
  );
  viewer.replaceChildren(h("div", { class: "viewer" }, stage, side));
}

const row = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function startViewer() {
  let from = null;
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") turnTo(-1);
    if (event.key === "ArrowRight") turnTo(1);
  });
  viewer.addEventListener("touchstart", (event) => (from = event.touches.length === 1 && event.target.closest(".stage") ? event.touches[0].clientX : null), { passive: true });
  viewer.addEventListener("touchend", (event) => {
    const by = from === null ? 0 : event.changedTouches[0].clientX - from;
    if (Math.abs(by) > 50) turnTo(by > 0 ? -1 : 1);
  });
  viewer.addEventListener("close", () => {
    if (open.turn === turn) main.querySelector(`[data-id="${open.list[open.place].id}"]`)?.focus();
  });
}

// Filter

function field(label, control, hint) {
  return h("label", { class: "field" }, h("span", {}, label), control, hint ? h("small", {}, hint) : null);
}

function showFilter(current) {
  const prompts = h("textarea", { rows: 3, maxlength: 4000, placeholder: "ör. bulanık bir fotoğraf" });
  const contrast = h("textarea", { rows: 3, maxlength: 4000, placeholder: state.contrast });
  const shown = h("output", {}, "%50");
  const least = h("input", { type: "range", min: 1, max: 99, value: 50, "aria-label": "En az olasılık, yüzde", oninput: () => (shown.textContent = `%${least.value}`) });
  const place = h("div", {});
  const form = h(
    "form",
    { class: "form two", "aria-label": "Filtre" },
    field("Neler işaretlensin?", prompts, "Her satıra bir söz"),
    field("Neyle karıştırılmasın?", contrast, "Boş bırakılırsa: her türlü başka fotoğraf"),
    h("label", { class: "field" }, h("span", {}, "En az olasılık: ", shown), least),
    h("div", { class: "row" }, h("button", { class: "button primary", id: "run-filter" }, icon("filter"), "İşaretle")),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = { prompts: prompts.value, contrast: contrast.value, least: Number(least.value) / 100 };
    const head = (page) => [
      ...page.notes.map((text) => note(text, "warning")),
      h("h2", {}, page.flagged ? `${page.flagged.toLocaleString("tr")} fotoğraf işaretlendi` : ""),
    ];
    const empty = panel({ title: "Hiçbiri işaretlenmedi", text: "Olasılığı düşürün ya da başka sözlerle deneyin.", symbol: "filter" });
    place.scrollIntoView({ block: "nearest" });
    await pages(place, current, (offset) => ask("filter", { ...given, offset }), { head, empty });
  });
  main.replaceChildren(
    title("Filtre"),
    h("p", { class: "lead" }, "Bütün fotoğraflara bakar ve sözlerinize uyanları işaretler. Hiçbir dosya taşınmaz, silinmez; yanılabilir, sonuçları gözden geçirin."),
    form,
    place,
  );
}

// Duplicates

async function showDuplicates(current) {
  const exact = h("input", { type: "checkbox" });
  const place = h("div", {});
  const start = h("button", { class: "button primary", id: "find-duplicates" }, icon("copies"), "Tekrarları ara");
  const form = h("form", { class: "form" }, h("label", { class: "check" }, exact, "Yalnız birebir aynı dosyalar"), h("div", { class: "row" }, start));
  main.replaceChildren(
    title("Tekrarlar"),
    h("p", { class: "lead" }, "Aynı fotoğrafın kopyalarını bulur: birebir aynı dosyaları, küçültülmüş, kırpılmış ya da yeniden kaydedilmişleri. Hiçbir şey silinmez."),
    form,
    place,
  );
  const watch = async () => {
    try {
      const job = await follow("duplicates", (one) => showJob(place, one, "Karşılaştırılıyor", start), current);
      if (job?.state === "done") await showGroups(place, job.result, current);
    } catch (error) {
      if (current()) place.replaceChildren(failed(error));
    }
    start.disabled = false;
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await ask("find-duplicates", { exact: exact.checked });
      await watch();
    } catch (error) {
      if (current()) place.replaceChildren(failed(error));
    }
  });
  await watch();
}

function showJob(place, job, words, button) {
  button.disabled = job.state === "running";
  if (job.state === "running") {
    const stop = h("button", { class: "button", type: "button", disabled: job.stopping, onclick: () => ask("stop", { kind: job.kind }) }, job.stopping ? "Duruyor…" : "Durdur");
    const had = place.contains(document.activeElement);
    place.replaceChildren(progress(job, words), stop);
    if (had) stop.focus();
  } else if (job.state === "failed") place.replaceChildren(panel({ title: "Olmadı", text: job.message, kind: "error" }));
  else if (job.state === "stopped") place.replaceChildren(note(job.kind === "index" ? "Durduruldu. Yeniden başlatırsanız kaldığı yerden sürer." : "Durduruldu."));
  else place.replaceChildren();
}

async function showGroups(place, result, current) {
  if (!result.groups) {
    place.replaceChildren(panel({ title: "Tekrar yok", text: `${result.images.toLocaleString("tr")} fotoğrafın hepsi birbirinden farklı.`, symbol: "check" }));
    say("Tekrar yok.");
    return;
  }
  const list = [];
  const body = h("div", {});
  const more = h("div", { class: "more-row" });
  const counts = `${result.groups.toLocaleString("tr")} grupta ${result.files.toLocaleString("tr")} dosya; fazlaları ${result.spare} yer tutuyor`;
  place.replaceChildren(h("h2", {}, counts), result.unread ? note(`${result.unread} dosya açılamadığı için karşılaştırılmadı.`, "warning") : "", body, more);
  say(counts);
  let number = 0;
  const step = async (offset) => {
    const page = await ask("duplicates", { offset });
    if (!current()) return;
    for (const group of page.groups) {
      body.append(
        h(
          "section",
          { class: "group" },
          h("h2", {}, `${++number}. grup`),
          h("ul", {}, group.map((file) => {
            list.push(file);
            const badge = file.keep ? h("span", { class: "badge good" }, "saklanacak") : null;
            const image = file.id ? h("button", { class: "tile", type: "button", "data-id": file.id, "aria-label": `${file.name}. ${file.fit}`, onclick: () => openViewer(list, list.indexOf(file)) }, h("img", { src: `thumbnail/${file.id}`, alt: "", loading: "lazy" }), badge) : null;
            return h("li", {}, image, h("p", {}, file.name), h("p", {}, file.folder), h("p", {}, `${file.size}, ${file.when}`), file.same ? h("p", {}, file.same) : null);
          })),
        ),
      );
    }
    more.replaceChildren(page.more ? h("button", { class: "button", type: "button", onclick: () => step(page.next) }, "Daha fazla göster") : "");
  };
  await step(0);
}

// Folders

async function showFolders(current) {
  const place = h("div", {});
  const work = h("div", {});
  let below = "";
  main.replaceChildren(title("Klasörler"), h("p", { class: "lead" }, `“${state.folder}” ve altındaki klasörler dizine alınabilir. Fotoğraflara dokunulmaz; yalnız yeni ve değişmiş olanlar okunur.`), work, place);
  const start = h("button", { class: "button primary", type: "button", id: "add-folder" }, icon("folder"), "");
  const watch = async () => {
    try {
      const job = await follow("index", (one) => showJob(work, one, "Dizine alınıyor", start), current);
      if (job?.state === "done") {
        work.replaceChildren(...indexed(job.result));
        say("Dizine alındı.");
      }
      if (job?.state) {
        state = await ask("state");
        if (current()) await draw(below);
      }
    } catch (error) {
      if (current()) work.replaceChildren(failed(error));
    }
    start.disabled = false;
  };
  start.addEventListener("click", async () => {
    try {
      await ask("add-folder", { below });
      await watch();
    } catch (error) {
      if (current()) work.replaceChildren(failed(error));
    }
  });
  const draw = async (folder) => {
    const found = await ask("folders", { below: folder });
    if (!current()) return;
    below = found.below;
    const parts = below ? below.split("/") : [];
    const crumbs = [state.folder, ...parts].map((name, place_) => [
      place_ ? icon("right") : null,
      h("button", { type: "button", "aria-current": place_ === parts.length ? "true" : null, onclick: () => draw(parts.slice(0, place_).join("/")) }, name),
    ]);
    start.lastChild.textContent = parts.length ? `“${parts.at(-1)}” klasörünü dizine al` : found.images ? "Dizini güncelle" : "Klasörü dizine al";
    place.replaceChildren(
      h("nav", { class: "crumbs", "aria-label": "Klasör yolu" }, crumbs),
      found.folders.length
        ? h("ul", { class: "folders" }, found.folders.map((name) => h("li", {}, h("button", { type: "button", onclick: () => draw([...parts, name].join("/")) }, icon("folder"), h("span", {}, name), icon("right")))))
        : h("p", { class: "lead" }, "Burada alt klasör yok."),
      h("div", { class: "row" }, start),
      h("h2", {}, `Dizinde: ${found.images.toLocaleString("tr")} fotoğraf`),
      found.indexed.length ? h("ul", { class: "folders" }, found.indexed.map((name) => h("li", {}, h("p", {}, icon("folder"), h("span", {}, name))))) : "",
      ...skipped(found.skipped, "Dizine alınamayan dosyalar"),
    );
  };
  place.replaceChildren(h("p", { class: "lead" }, "Klasörlere bakılıyor…"));
  try {
    await draw("");
    await watch();
  } catch (error) {
    if (current()) place.replaceChildren(failed(error, () => showFolders(current)));
  }
}

function indexed(result) {
  const changes = [
    [result.added, "yeni"], [result.duplicates, "aynı içerikli kopya"], [result.moved, "taşınmış"], [result.vanished, "artık olmayan"],
  ].filter(([count]) => count).map(([count, what]) => `${count.toLocaleString("tr")} ${what}`);
  const text = changes.length ? `Bitti: ${changes.join(", ")}.` : "Bitti: değişen bir şey yok.";
  return [note(text), ...(result.skipped_count ? [note(`${result.skipped_count} dosya okunamadı.`, "warning")] : [])];
}

function skipped(files, heading) {
  if (!files.length) return [];
  return [h("h2", {}, heading), h("ul", { class: "folders" }, files.map((file) => h("li", {}, h("p", {}, icon("warn"), h("span", {}, file)))))];
}

// Classify, compare, about

function showClassify(current) {
  const image = picker({ label: "Resim seç" });
  const labels = h("textarea", { rows: 3, maxlength: 8000 });
  labels.value = "kedi, köpek, araba|otomobil";
  const place = h("div", {});
  const form = h(
    "form",
    { class: "form", "aria-label": "Sınıflandır" },
    image.element,
    field("Etiketler", labels, "Virgülle ya da ayrı satırlara; eş anlamlılar arasına | koyun"),
    h("div", { class: "row" }, h("button", { class: "button primary", id: "classify" }, icon("tag"), "Sınıflandır")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answerInto(place, current, "Resme bakılıyor…", () => ask("classify", { image: image.value[0]?.id ?? "", labels: labels.value }), (found) => [
      ...found.notes.map((text) => note(text, "warning")),
      h("h2", {}, "Olasılıklar"),
      h("ul", { class: "bars" }, found.labels.map(({ label, probability, text }) => {
        const fill = h("i", {});
        fill.style.width = `${100 * probability}%`;
        return h("li", {}, h("div", {}, h("strong", {}, label), h("span", {}, text)), h("div", { class: "track", "aria-hidden": "true" }, fill));
      })),
    ]);
  });
  main.replaceChildren(title("Sınıflandır"), h("p", { class: "lead" }, "Bir resme etiketlerinizden hangisinin en çok yakıştığını söyler. Hiçbiri uymasa da olasılıkların toplamı %100'dür."), form, place);
}

function showCompare(current) {
  const chosen = picker({ label: "Resimler seç", multiple: true, most: 20 });
  const texts = h("textarea", { rows: 4, maxlength: 15000, placeholder: "Her satıra bir metin" });
  const place = h("div", {});
  const form = h(
    "form",
    { class: "form", "aria-label": "Karşılaştır" },
    chosen.element,
    field("Metinler", texts, "Her satıra bir tane, en çok 30"),
    h("div", { class: "row" }, h("button", { class: "button primary", id: "compare" }, icon("table"), "Karşılaştır")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const shown = [...chosen.value];
    answerInto(place, current, "Karşılaştırılıyor…", () => ask("compare", { images: shown.map((one) => one.id), texts: texts.value }), (found) => [
      ...found.notes.map((text) => note(text, "warning")),
      h("h2", {}, "Benzerlik puanları"),
      h("p", { class: "lead" }, "★ her metne en yakın resim. Puanlar kosinüs benzerliğidir, olasılık değildir."),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Benzerlik puanları" }, h(
        "table",
        { id: "scores" },
        h("thead", {}, h("tr", {}, h("td", {}), found.texts.map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, found.scores.map((scores, place_) => h(
          "tr",
          {},
          h("th", { scope: "row" }, h("img", { src: shown[place_].url, alt: shown[place_].name })),
          scores.map((score, column) => {
            const cell = h("td", {}, found.best[column] === place_ ? `${score} ★` : score);
            const shade = found.shades[place_][column];
            cell.style.background = `rgb(26 95 180 / ${shade < 0.5 ? shade * 0.5 : 0.8 + 0.2 * shade})`;
            if (shade >= 0.5) cell.style.color = "#fff";
            return cell;
          }),
        ))),
      )),
    ]);
  });
  main.replaceChildren(title("Karşılaştır"), h("p", { class: "lead" }, "Resimlerle metinleri karşılaştırır: her metne hangi resim en yakın?"), form, place);
}

async function answerInto(place, current, waiting, load, draw) {
  const again = () => answerInto(place, current, waiting, load, draw);
  place.replaceChildren(h("div", { class: "progress" }, h("p", {}, waiting), h("progress", { "aria-label": waiting })));
  say(waiting);
  try {
    const found = await load();
    if (!current()) return;
    place.replaceChildren(...draw(found));
    place.scrollIntoView({ block: "nearest" });
    say("Sonuçlar hazır.");
  } catch (error) {
    if (current()) place.replaceChildren(failed(error, again));
  }
}

async function showAbout(current) {
  const place = h("div", {});
  main.replaceChildren(title("Hakkında"), ...state.notes.map((text) => note(text, "warning")), place);
  await answerInto(place, current, "Bilgiler geliyor…", () => ask("about"), (rows) => [
    h("div", { class: "about" }, h("dl", {}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))),
    h("p", { class: "lead" }, "Puanlar kosinüs benzerliğidir, olasılık değildir; sözle aramada her söze yakın düşen resimler geriye alınabilir. Bir filtre ya da sınıflandırıcı yanılabilir: sonuçları gözden geçirmeden kullanmayın. Fotoğraflar bu makineden çıkmaz."),
  ]);
}

// The beginning

function startNav() {
  const link = (section, rest) => h("a", { href: `#${section.id}`, class: rest ? "rest" : null }, icon(section.symbol), h("span", {}, section.name));
  const sections = available();
  const rest = sections.filter((section) => section.rest);
  const few = sections.length <= 5;
  const more = h("button", { type: "button", class: "to-more", "aria-expanded": "false", "aria-controls": "menu", onclick: () => {
    menu.hidden = !menu.hidden;
    more.setAttribute("aria-expanded", String(!menu.hidden));
    if (!menu.hidden) menu.querySelector("a").focus();
  } }, icon("more"), h("span", {}, "Diğer"));
  nav.replaceChildren(...sections.map((section) => link(section, section.rest && !few)), few ? "" : more);
  menu.replaceChildren(...rest.map((section) => link(section)));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.hidden = true;
    more.setAttribute("aria-expanded", "false");
    more.focus();
  });
  document.addEventListener("click", (event) => {
    if (menu.hidden || event.target.closest("#menu, .to-more")) return;
    menu.hidden = true;
    more.setAttribute("aria-expanded", "false");
  });
}

async function start() {
  main.replaceChildren(skeleton());
  try {
    state = await ask("state");
  } catch (error) {
    main.replaceChildren(failed(error, start));
    return;
  }
  startNav();
  startBar();
  startViewer();
  window.addEventListener("hashchange", show);
  show();
}

start();
