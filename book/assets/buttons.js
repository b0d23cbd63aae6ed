// The theme's buttons: the policy of the pages allows no script in an attribute, so that each names
// what it calls.
const calls = { print: () => window.print(), toggleFullScreen: () => window.toggleFullScreen() };
for (const button of document.querySelectorAll("[data-call]")) {
  button.addEventListener("click", calls[button.dataset.call]);
}

// Paper is white: the page is light while it is printed.
const page = document.documentElement;
let theme;
addEventListener("beforeprint", () => {
  theme = page.dataset.theme;
  page.dataset.theme = "light";
});
addEventListener("afterprint", () => (page.dataset.theme = theme));
