import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;

/**
 * One request by Java's HttpURLConnection, which signs in by itself; the arguments are the URLs.
 * Prints a line for each: the status and the user that the program there sees, or the exception.
 */
public class HttpClient {
    static String userOf(String body) {
        for (String line : body.split("\n")) {
            if (line.startsWith("REMOTE_USER=")) {
                return line.substring(line.indexOf('=') + 1);
            }
        }
        return "-";
    }

    static String ask(String url) {
        try {
            HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
            connection.setConnectTimeout(30000);
            connection.setReadTimeout(30000);
            int status = connection.getResponseCode();
            InputStream from = status < 400 ? connection.getInputStream() : connection.getErrorStream();
            String body = from == null ? "" : new String(from.readAllBytes(), StandardCharsets.UTF_8);
            return status + " " + userOf(body);
        } catch (IOException wrong) {
            return "exception: " + wrong.getMessage();
        }
    }

    public static void main(String[] urls) {
        for (String url : urls) {
            System.out.println(ask(url));
        }
    }
}
