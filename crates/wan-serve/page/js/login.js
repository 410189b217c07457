import { translate } from "./i18n.js";

translate();
document.getElementById("login-error").hidden = !new URLSearchParams(location.search).has("wrong_password");
