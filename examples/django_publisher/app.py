"""A Django project in one file, whose view publishes to the clients of a WebSocket server beside it.

Start the server, then the project, with the same token:

    export FASTCAST_ADMIN_TOKEN=change-this-secret
    fastcast serve --relay off --admin-port 8001 &
    python examples/django_publisher/app.py

What is announced at http://127.0.0.1:8080/ appears at once in every browser that has the page open. HOST and
PORT say where Django listens, ADMIN_URL where the admin port is, and CLIENTS_URL where browsers connect to.
"""

from __future__ import annotations

import json
import os

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import path
from django.utils.html import escape, json_script
from django.views.decorators.http import require_http_methods

import fastcast

CHANNEL = "/announcements"
CLIENTS_URL = os.environ.get("CLIENTS_URL", "ws://127.0.0.1:8000")

settings.configure(
    DEBUG=True,
    SECRET_KEY=os.environ.get("SECRET_KEY", "only for trying this example out"),
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
)

# One for the process: it keeps connections, and threads may share it.
publisher = fastcast.Publisher(
    os.environ.get("ADMIN_URL", "http://127.0.0.1:8001"), token=os.environ["FASTCAST_ADMIN_TOKEN"]
)

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Announcements</title>
<style>
body {{ margin: 2rem auto; padding: 0 1rem; max-width: 34rem; font: 1rem/1.5 system-ui, sans-serif; }}
form {{ display: flex; gap: .5rem; }}
input {{ flex: 1; }}
input, button {{ font: inherit; padding: .5rem .75rem; }}
li {{ margin: .5rem 0; overflow-wrap: anywhere; }}
</style>
<h1>Announcements</h1>
<form id="form">
  <input type="hidden" name="csrfmiddlewaretoken" value="{csrf}">
  <input name="text" aria-label="Announcement" required autofocus> <button>Announce</button>
</form>
<ul id="list" aria-live="polite"></ul>
{url}
<script>
const [form, list, url] = ["form", "list", "url"].map((id) => document.getElementById(id));
const say = (words) => {{
  const item = document.createElement("li");
  item.textContent = words;
  list.prepend(item);
}};
form.onsubmit = async (event) => {{
  event.preventDefault();
  const answer = await fetch("/", {{method: "POST", body: new FormData(form)}});
  if (answer.ok) form.text.value = "";
  else say(await answer.text());
}};
new WebSocket(JSON.parse(url.textContent)).onmessage = ({{data}}) => say(JSON.parse(data).text);
</script>
</html>
"""


@require_http_methods(["GET", "POST"])
def board(request: HttpRequest) -> HttpResponse:
    if request.method == "GET":
        return HttpResponse(
            PAGE.format(csrf=escape(get_token(request)), url=json_script(CLIENTS_URL + CHANNEL, "url"))
        )
    try:
        publisher.publish(CHANNEL, json.dumps({"text": request.POST.get("text", "")}))
    except fastcast.PublishError as error:
        return HttpResponse(f"not announced: {error}\n", "text/plain", 503)
    return HttpResponse(status=204)


urlpatterns = [path("", board)]

if __name__ == "__main__":
    host, port = os.environ.get("HOST", "127.0.0.1"), os.environ.get("PORT", "8080")
    execute_from_command_line(["app.py", "runserver", "--noreload", f"{host}:{port}"])
