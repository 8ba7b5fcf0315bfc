// A click on the head of a table's column sorts its rows, by number where the cells begin with one.
function key(row, column) {
  const text = row.cells[column]?.textContent.trim().replace("−", "-") ?? "";
  const number = parseFloat(text.replace(/^(under )?[+~]?/, ""));
  if (Number.isNaN(number)) return text.toLowerCase();
  return text.startsWith("under ") ? number - 0.5 : number;
}

function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
}

document.addEventListener("DOMContentLoaded", () => {
  for (const cell of document.querySelectorAll("article td")) {
    // On a phone a column of sentences is not squeezed, and names of files break after an underscore.
    if (cell.textContent.length > 40 && cell.parentElement.cells.length > 2) cell.classList.add("long");
    for (const name of cell.querySelectorAll("a, a *")) {
      if (!name.children.length) name.innerHTML = name.innerHTML.replaceAll("_", "_<wbr>");
    }
  }
  for (const table of document.querySelectorAll("article table")) {
    const [body] = table.tBodies;
    const heads = table.tHead?.rows[0]?.cells ?? [];
    if (!body || body.rows.length < 3) continue;
    [...heads].forEach((head, column) => {
      const sort = () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(key(a, column), key(b, column)));
        body.append(...rows);
      };
      head.tabIndex = 0;
      head.title = "Sort by this column";
      head.classList.add("sorts");
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
    });
  }
});
