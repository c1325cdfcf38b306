// Runs in the page and leaves what it saw in an element of its own. HIDDEN is the anchor of a row that is folded away.
const told = {};
const all = name => [...document.querySelectorAll(name)];
const shown = () => all("#rows tbody").filter(row => row.checkVisibility());
const kinds = () => [...new Set(shown().map(row => row.dataset.kind))];

function choose(name, value) {
  form.elements[name].value = value;
  form.elements[name].dispatchEvent(new Event("change", { bubbles: true }));
}

const channels = colour => colour.match(/[\d.]+/g).map(Number);

function luminance(colour) { // as WCAG defines it
  const [r, g, b] = channels(colour).map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(element) {
  let behind = element;
  while (channels(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const both = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(luminance);
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}

function pale() {
  const hasText = element => [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const told = all("body *").filter(element => hasText(element) && element.checkVisibility());
  return told.filter(element => contrast(element) < 4.5).map(element => element.outerHTML.slice(0, 200));
}

async function probe() {
  told.beyond = document.documentElement.scrollWidth - innerWidth;
  told.kinds = kinds();
  shown().slice(0, 3).forEach(row => row.querySelector(".show input").click());
  told.opened = all("#rows .more").filter(row => row.checkVisibility()).length;
  told.pale = pale();
  document.body.style.setProperty("--grey", getComputedStyle(document.body).backgroundColor);
  told.notices = pale().length;
  document.body.style.removeProperty("--grey");
  choose("verdict", "not attempted");
  told.verdicts = [...new Set(shown().map(row => row.dataset.verdicts.split("|")[0]))];
  all("a[data-paper]")[1].click();
  told.papers = [...new Set(shown().map(row => row.dataset.paper)), all("a[data-paper]")[1].dataset.paper];
  all("#rows thead button")[2].click();
  all("#rows thead button")[2].click();
  told.sorted = all("#rows tbody").map(row => row.rows[0].cells[2].dataset.key);
  told.headings = all("#rows thead th").map(heading => heading.ariaSort);
  choose("sort", "-1");
  told.order = all("#rows tbody").map(row => row.id);
  const row = document.getElementById(HIDDEN);
  told.before = row.checkVisibility();
  const changed = new Promise(done => addEventListener("hashchange", done));
  location.hash = HIDDEN;
  await changed;
  told.after = row.checkVisibility() && row.querySelector(".more").checkVisibility();
}

probe().catch(error => { told.error = String(error); }).then(() => {
  const place = document.createElement("pre");
  place.id = "probe";
  place.textContent = JSON.stringify(told);
  document.body.append(place);
});
