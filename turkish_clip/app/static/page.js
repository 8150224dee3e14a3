// The sections of the page; what is shown follows the address after "#", so that going back works.

import { IMAGES, ask, dropping, failed, h, icon, main, modelNotes, note, panel, picture, say, skeleton, state, title, upload } from "./dom.js";
import { pages, startViewer, viewer } from "./grid.js";
import { showAbout, showClassify, showCompare, showDraw, showDuplicates, showFilter, showFolders } from "./sections.js";

const bar = document.getElementById("bar");
const nav = document.getElementById("nav");
const menu = document.getElementById("menu");
const words = document.getElementById("words");
const without = document.getElementById("without");
const chip = document.getElementById("chip");
const images = new Map(); // address of the thumbnail of an upload, by its name
let turn = 0; // of the address: answers to an earlier one are dropped

const SECTIONS = [
  { id: "fotograflar", name: "Fotoğraflar", symbol: "photos", needs: "index", show: showNewest },
  { id: "filtre", name: "Filtre", symbol: "filter", needs: "index", show: showFilter },
  { id: "tekrarlar", name: "Tekrarlar", symbol: "copies", needs: "index", show: showDuplicates },
  { id: "klasorler", name: "Klasörler", symbol: "folder", needs: "folders", show: showFolders },
  { id: "siniflandir", name: "Sınıflandır", symbol: "tag", rest: true, show: showClassify },
  { id: "karsilastir", name: "Karşılaştır", symbol: "table", rest: true, show: showCompare },
  { id: "ciz", name: "Çiz", symbol: "brush", rest: true, show: showDraw },
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
  if (id === "ara") showSearch(given, current);
  else section.show(current);
  window.scrollTo(0, 0); // after the section stands there: what was taller before may have been scrolled
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
  if (!name) return;
  const uploaded = name.startsWith("u");
  const image = uploaded ? picture({ id: name, url: images.get(name), name: "" }) : h("img", { src: `thumbnail/${name}`, alt: "" });
  chip.querySelector("img").replaceWith(image);
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
    window.scrollTo(0, 0);
  }
  bar.removeAttribute("aria-busy");
}

function startBar() {
  const file = document.getElementById("image-file");
  file.accept = IMAGES;
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

// The photographs

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
  main.replaceChildren(title("Fotoğraflar"), ...modelNotes(), place);
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
    return [...said, ...modelNotes()];
  };
  await pages(place, current, (offset) => ask("search", { ...asked, offset }), { head, empty: panel({ title: "Bir şey bulunamadı", text: "Başka sözlerle deneyin.", symbol: "search" }), counted: "sonuç", words: asked.words });
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
    Object.assign(state, await ask("state"));
  } catch (error) {
    main.replaceChildren(failed(error, start));
    return;
  }
  startNav();
  startBar();
  startViewer();
  window.addEventListener("hashchange", show);
  history.scrollRestoration = "manual"; // every section begins at its top
  document.addEventListener("click", (event) => {
    const link = event.target.closest("#nav a, #menu a, .brand");
    if (!link || link.hash !== location.hash) return;
    event.preventDefault();
    show(); // the same address again: nothing would change
  });
  show();
}

start();
